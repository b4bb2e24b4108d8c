// Asks each question in a conversation of its own, by the openai library: BASE_URL KEY QUESTION...
import OpenAI from "openai";

const [baseURL, apiKey, ...questions] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
for (const content of questions) {
  const messages = [{ role: "user", content }];
  const answer = await client.chat.completions.create({ model: "verse", messages });
  console.log(answer.choices[0].message.content);
}
const messages = [{ role: "user", content: "Good bye" }];
const stream = await client.chat.completions.create({ model: "verse", messages, stream: true });
const pieces = [];
for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta?.content ?? "");
console.log(pieces.join(""));
