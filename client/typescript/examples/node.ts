import { createGrpcTransport } from "@connectrpc/connect-node";
import { Client } from "../src/index.ts";

const baseUrl = "http://127.0.0.1:50051";
const transport = createGrpcTransport({ baseUrl, readMaxBytes: 64 << 20 });
const client = await Client.connect(transport, { model: "tumors" });
const rows = [client.model.grid.minimum]; // or [[17.9, 10.4, ...]], or [{ "mean radius": 17.9, ... }]
console.log(await client.predict(rows), await client.predictProba(rows));
client.dispose();
