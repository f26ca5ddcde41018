// The released flagd provider for node, asked and heard over JSON lines: see provider.py, which speaks the same.
"use strict";
const readline = require("node:readline");
const { OpenFeature, ProviderEvents } = require("@openfeature/server-sdk");
const { FlagdProvider } = require("@openfeature/flagd-provider");

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function main() {
  const [mode, port, selector] = process.argv.slice(2);
  const provider = new FlagdProvider({
    host: "127.0.0.1", port: Number(port), resolverType: mode, deadlineMs: 30_000, retryBackoffMaxMs: 1_000, selector,
  });
  await OpenFeature.setProviderAndWait(provider);
  const client = OpenFeature.getClient();
  client.addHandler(ProviderEvents.ConfigurationChanged, (details) => say({ changed: details?.flagsChanged ?? [] }));
  say({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [key, context] = JSON.parse(line);
    const found = await client.getBooleanDetails(key, true, context);
    say({ value: found.value, variant: found.variant, reason: found.reason, error: found.errorCode ?? null });
  }
  await OpenFeature.close();
}

main().then(
  () => process.exit(0), // its timers of a lost stream would keep it
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
