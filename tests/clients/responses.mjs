import OpenAI from 'openai'
import { as, eventually, run, truncatingUrl, url } from './harness.mjs'

const FIVE = 'one two three four five'

function clientOf(user, base = url) {
  return new OpenAI({ baseURL: `${base}/v1`, apiKey: 'a-key', defaultHeaders: as(user), maxRetries: 0 })
}

async function collect(stream) {
  const events = []
  for await (const event of stream) events.push(event)
  return events
}

/** The next event of a stream, which is then closed. */
async function first(stream) {
  for await (const event of stream) return event
}

async function errorOf(promise) {
  try {
    await promise
  } catch ({ status, code, type, param, constructor }) {
    return { status, code, type, param, named: constructor.name }
  }
}

await run({
  async whole(user) {
    const client = clientOf(user)
    const response = await client.responses.create({ model: 'default', input: 'Hello, whole world' })
    const retrieved = await client.responses.retrieve(response.id)
    return { text: response.output_text, same: retrieved.output_text === response.output_text, status: retrieved.status }
  },

  async helper(user) {
    const runner = clientOf(user).responses.stream({ model: 'default', input: FIVE })
    return { text: (await runner.finalResponse()).output_text }
  },

  async resume(user) {
    const { responses } = clientOf(user)
    const received = [await first(await responses.create({ model: 'default', input: FIVE, background: true, stream: true }))]
    const { id } = received[0].response
    for (;;) {
      const query = { stream: true, starting_after: received.at(-1).sequence_number }
      const event = await first(await responses.retrieve(id, query))
      if (!event) break
      received.push(event)
    }
    const replayed = await collect(await responses.retrieve(id, { stream: true }))
    const text = received.map(({ type, delta }) => (type === 'response.output_text.delta' ? delta : '')).join('')
    return { text, same: JSON.stringify(received) === JSON.stringify(replayed), last: received.at(-1).type }
  },

  async resumeHelper(user) {
    const { responses } = clientOf(user)
    const { id } = await responses.create({ model: 'default', input: FIVE, background: true })
    const numbers = []
    const runner = responses.stream({ response_id: id, starting_after: 4 }).on('event', (event) => numbers.push(event.sequence_number))
    return { text: (await runner.finalResponse()).output_text, first: numbers[0] }
  },

  async background(user) {
    const { responses } = clientOf(user)
    const { id } = await responses.create({ model: 'default', input: '/slow 1 one two', background: true })
    const done = await eventually(async () => {
      const response = await responses.retrieve(id)
      return response.status === 'completed' && response
    })
    const running = await responses.create({ model: 'default', input: '/slow 600 one two', background: true })
    return { text: done.output_text, cancelled: (await responses.cancel(running.id)).status }
  },

  async chain(user) {
    const { responses } = clientOf(user)
    const one = await responses.create({ model: 'echo', input: 'one' })
    const two = await responses.create({ model: 'echo', input: 'two', previous_response_id: one.id })
    const items = await collect(responses.inputItems.list(two.id))
    await responses.delete(one.id)
    return {
      items: items.map(({ content }) => content[0].text),
      previous: two.previous_response_id === one.id,
      gone: await errorOf(responses.retrieve(one.id)),
      broken: await errorOf(responses.create({ model: 'echo', input: 'three', previous_response_id: one.id })),
    }
  },

  async errors(user) {
    const { responses } = clientOf(user)
    const image = [{ role: 'user', content: [{ type: 'input_image', image_url: 'https://example.org/a.png', detail: 'auto' }] }]
    const streamed = await collect(await responses.create({ model: 'default', input: '/error', stream: true }))
    return {
      image: await errorOf(responses.create({ model: 'default', input: image })),
      failed: await errorOf(responses.create({ model: 'default', input: '/error' })),
      streamed: [streamed.at(-1).type, streamed.at(-1).response.error.type],
    }
  },

  async truncated(user) {
    const { responses } = clientOf(user, truncatingUrl)
    const runner = responses.stream({ model: 'default', input: 'hello' })
    const response = await runner.finalResponse()
    return { status: response.status, types: response.output.map(({ type }) => type), text: response.output_text }
  },
})
