import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Client, SealserveError } from "../src/index.ts";

const transport = createGrpcWebTransport({ baseUrl: "https://inference.example.com" });
const client = await Client.connect(transport, { model: "tumors", layout: "row" });
try {
  const [label] = await client.predict([client.model.grid.minimum], { timeoutMs: 5000 });
  document.body.textContent = String(label);
} catch (error) {
  const isSlow = error instanceof SealserveError && error.is("deadline", "unavailable");
  document.body.textContent = isSlow ? "The service does not answer." : String(error);
}
