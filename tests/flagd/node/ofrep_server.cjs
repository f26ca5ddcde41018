// The released OFREP provider for servers: for every line of input ([kind, key, default, context]) one line of details.
const readline = require("node:readline");
const { OpenFeature } = require("@openfeature/server-sdk");
const { OFREPProvider } = require("@openfeature/ofrep-provider");

async function main() {
  const headers = [["Authorization", `Bearer ${process.env.TOKEN}`]];
  await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: process.env.URL, headers }));
  const client = OpenFeature.getClient();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [kind, key, fallback, context] = JSON.parse(line);
    console.log(JSON.stringify(await client[`get${kind}Details`](key, fallback, context)));
  }
  await OpenFeature.close();
}

main();
