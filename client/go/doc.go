// Package sealserve asks a sealserve service for predictions on encrypted rows.
//
// Features are encrypted and scores decrypted in this process, under a secret key that never leaves
// it. The cryptography is Lattigo's; no SEAL, no Python and no agent is needed.
//
//	client, err := sealserve.Dial(ctx, "127.0.0.1:50051", sealserve.WithModel("mnist"))
//	if err != nil { ... }
//	defer client.Close()
//	predictions, err := client.Predict(ctx, rows)
//	if err != nil { ... }
//	labels, err := sealserve.Labels[int64](predictions)
//
// Do not send scores, errors or decisions to retry back to the operator of the service.
package sealserve
