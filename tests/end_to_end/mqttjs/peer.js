// An MQTT.js client that waits for what it is told to expect.
'use strict'

const assert = require('assert')
const mqtt = require('mqtt')

const [host, port] = process.argv.slice(2)
const PATIENCE_MS = 10000
// How long it must be quiet where nothing is expected.
const QUIET_MS = 300

// What has happened, and who waits for it.
class Mailbox {
  constructor () {
    this.items = []
    this.waiting = []
  }

  put (item) {
    const waiting = this.waiting.shift()
    if (waiting) waiting(item)
    else this.items.push(item)
  }

  get (what, patience = PATIENCE_MS) {
    if (this.items.length > 0) return Promise.resolve(this.items.shift())
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting = this.waiting.filter((other) => other !== take)
        reject(new Error(`no ${what} came`))
      }, patience)
      const take = (item) => {
        clearTimeout(timer)
        resolve(item)
      }
      this.waiting.push(take)
    })
  }
}

class Peer {
  static async connect (clientId, options = {}) {
    const peer = new Peer()
    peer.messages = new Mailbox()
    peer.connacks = new Mailbox()
    peer.closes = new Mailbox()
    peer.disconnects = new Mailbox()
    peer.client = mqtt.connect({
      host, port: Number(port), clientId, reconnectPeriod: 0, protocolVersion: 5, ...options
    })
    peer.client.on('message', (topic, payload, packet) => peer.messages.put({ topic, payload, packet }))
    peer.client.on('connect', (packet) => peer.connacks.put(packet))
    peer.client.on('close', () => peer.closes.put(true))
    peer.client.on('disconnect', (packet) => peer.disconnects.put(packet))
    peer.client.on('error', (error) => { peer.error = error })
    peer.connack = await peer.connacks.get('CONNACK')
    return peer
  }

  async subscribe (topic, options = { qos: 0 }) {
    return this.client.subscribeAsync(topic, options)
  }

  async publish (topic, payload, options = {}) {
    return this.client.publishAsync(topic, payload, options)
  }

  async expect (topic, payload, fields = {}) {
    const message = await this.messages.get(`${topic}: ${payload.toString().slice(0, 80)}`)
    assert.strictEqual(message.topic, topic)
    assert.ok(message.payload.equals(Buffer.from(payload)), `another payload: ${message.payload.subarray(0, 80)}`)
    for (const [name, value] of Object.entries(fields)) assert.strictEqual(message.packet[name], value, name)
    return message.packet
  }

  async expectNothing () {
    let message
    try {
      message = await this.messages.get('message', QUIET_MS)
    } catch (error) {
      return
    }
    assert.fail(`got ${message.topic}: ${message.payload.subarray(0, 80)}`)
  }

  async leave () {
    await this.client.endAsync()
  }

  // Closes the socket without DISCONNECT.
  vanish () {
    this.client.stream.destroy()
    this.client.end(true)
  }
}

// Runs each `[name, function]`; ends with 1 when one does not hold.
async function run (scenarios) {
  let failed = 0
  for (const [name, scenario] of scenarios) {
    const began = Date.now()
    try {
      await scenario()
      console.log(`ok ${name} (${Date.now() - began} ms)`)
    } catch (error) {
      console.log(`FAILED ${name}: ${error.stack}`)
      failed += 1
    }
  }
  console.log(`${scenarios.length - failed} of ${scenarios.length} hold`)
  process.exit(failed > 0 ? 1 : 0)
}

module.exports = { Peer, run }
