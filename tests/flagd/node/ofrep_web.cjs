// The released OFREP provider for browsers. What happens is a line of output: each answer to a bulk request, each event; and
// for every line of input ([kind, key, default]) the details.
const readline = require("node:readline");
const { OpenFeature, ProviderEvents } = require("@openfeature/web-sdk");
const { OFREPWebProvider } = require("@openfeature/ofrep-web-provider");

const say = (message) => console.log(JSON.stringify(message));

async function watched(request, options) {
  const answer = await fetch(request, options);
  say({ status: answer.status, query: new URL(request.url).search, known: request.headers.get("if-none-match") });
  return answer;
}

async function main() {
  const provider = new OFREPWebProvider({
    baseUrl: process.env.URL,
    headers: [["Authorization", `Bearer ${process.env.TOKEN}`]],
    cacheMode: "disabled",
    fetchImplementation: watched,
    ...JSON.parse(process.env.OPTIONS),
  });
  OpenFeature.addHandler(ProviderEvents.ConfigurationChanged, (event) => say({ changed: event.flagsChanged }));
  await OpenFeature.setContext({ targetingKey: "u", plan: "paid" });
  await OpenFeature.setProviderAndWait(provider);
  const client = OpenFeature.getClient();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [kind, key, fallback] = JSON.parse(line);
    say(client[`get${kind}Details`](key, fallback));
  }
  await OpenFeature.close();
}

main();
