// OpenAI's client with a `fetch` that keeps cookies, used twice: prints the replies.
import OpenAI from 'openai'

const cookies = new Map()

async function fetchWithCookies(url, init) {
  const headers = new Headers(init.headers)
  if (cookies.size) headers.set('Cookie', [...cookies].map(([name, value]) => `${name}=${value}`).join('; '))
  const response = await fetch(url, { ...init, headers })
  for (const cookie of response.headers.getSetCookie()) {
    const [, name, value] = cookie.match(/^([^=]+)=([^;]*)/)
    cookies.set(name, value)
  }
  return response
}

const client = new OpenAI({ baseURL: `${process.env.SERVER_URL}/v1`, apiKey: 'a-key', fetch: fetchWithCookies, maxRetries: 0 })
const replies = []
for (const content of ['first', 'second']) {
  const completion = await client.chat.completions.create({ model: 'echo', messages: [{ role: 'user', content }] })
  replies.push(completion.choices[0].message.content)
}
process.stdout.write(JSON.stringify({ replies, cookies: [...cookies.keys()] }), () => process.exit(0))
