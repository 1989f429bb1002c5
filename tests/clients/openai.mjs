import OpenAI from 'openai'
import { as, cuttingUrl, waitUntilIdle, run, truncatingUrl, url } from './harness.mjs'

function clientOf(user, base = url, more = {}) {
  return new OpenAI({ baseURL: `${base}/v1`, apiKey: 'a-key', defaultHeaders: as(user, more), maxRetries: 0 })
}

const completionRequest = (content, more = {}) => ({ model: 'default', messages: [{ role: 'user', content }], ...more })

async function streamed(client, content, options) {
  const received = { text: '', finish: null }
  try {
    for await (const chunk of await client.chat.completions.create(completionRequest(content, { stream: true }), options)) {
      received.text += chunk.choices[0].delta.content ?? ''
      received.finish = chunk.choices[0].finish_reason
      received.id = chunk.id
    }
  } catch (error) {
    received.thrown = error.constructor.name
    received.code = error.code
  }
  return received
}

async function errorOf(promise) {
  try {
    await promise
  } catch ({ status, code, type, param, requestID, constructor }) {
    return { status, code, type, param, named: constructor.name, requestID: Boolean(requestID) }
  }
}

await run({
  async answer(user) {
    const { text, finish } = await streamed(clientOf(user), 'Hello, streaming world')
    return { text, finish }
  },

  async whole(user) {
    const { choices, object, model } = await clientOf(user).chat.completions.create(completionRequest('Hello, whole world'))
    return { object, model, message: choices[0].message, finish: choices[0].finish_reason }
  },

  async unicode(user) {
    const text = (await clientOf(user).chat.completions.create(completionRequest('/unicode'))).choices[0].message.content
    return { whole: text, streamed: (await streamed(clientOf(user), '/unicode')).text }
  },

  async error(user) {
    const { text, thrown, code } = await streamed(clientOf(user), '/error')
    return { text, thrown, code, whole: await errorOf(clientOf(user).chat.completions.create(completionRequest('/error'))) }
  },

  async refusal(user) {
    const client = clientOf(user)
    return {
      blank: await errorOf(client.chat.completions.create(completionRequest('   '))),
      model: await errorOf(client.chat.completions.create(completionRequest('hi', { model: 'gpt-9' }))),
      stranger: await errorOf(new OpenAI({ baseURL: `${url}/v1`, apiKey: 'x', maxRetries: 0 }).models.list()),
    }
  },

  async truncated(user) {
    const client = clientOf(user, truncatingUrl)
    const whole = await client.chat.completions.create(completionRequest('hello'))
    const received = []
    const options = { stream: true, stream_options: { include_usage: true } }
    for await (const { choices, usage } of await client.chat.completions.create(completionRequest('hello', options))) {
      received.push([choices[0]?.finish_reason ?? null, usage])
    }
    return { whole: [whole.choices[0].finish_reason, whole.choices[0].message.content, whole.usage], streamed: received.slice(-2) }
  },

  async unknown(user) {
    const client = clientOf(user)
    return {
      route: await errorOf(client.embeddings.create({ model: 'default', input: 'hello' })),
      method: await errorOf(client.models.delete('default')),
      many: await errorOf(client.chat.completions.create(completionRequest('hello', { n: 2 }))),
    }
  },

  async helper(user) {
    const runner = clientOf(user).chat.completions.stream(completionRequest('hello', { stream_options: { include_usage: true } }))
    return { text: await runner.finalContent(), usage: await runner.totalUsage() }
  },

  async models(user) {
    const ids = []
    for await (const model of clientOf(user).models.list()) ids.push(model.id)
    return { ids, one: (await clientOf(user).models.retrieve('default')).id }
  },

  async silence(user) {
    return (await streamed(clientOf(user), '/silence 1')).text
  },

  async stop(user) {
    const stream = await clientOf(user).chat.completions.create(completionRequest('/slow 600 one two', { stream: true }))
    let text = ''
    for await (const chunk of stream) {
      text += chunk.choices[0].delta.content ?? ''
      if (text) stream.controller.abort()
    }
    return { text, gone: await waitUntilIdle(user) }
  },

  async resume(user) {
    const client = clientOf(user, cuttingUrl, { 'X-Cut': 'three', 'Idempotency-Key': `${user}-key` })
    const broken = await streamed(client, '/slow 2 one two three four five')
    const { text, finish, id } = await streamed(client, '/slow 2 one two three four five')
    return { broken: Boolean(broken.thrown), text, finish, same: id === broken.id }
  },
})
