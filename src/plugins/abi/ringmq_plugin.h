/*
 * ringmq_plugin.h: plugins for RingMQ as shared libraries.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Print this file with `ringmq plugin-header`. It is all that a plugin in C or C++ needs; `ringmq plugin-header --rust`
 * prints the same for Rust. Nothing is linked: the broker hands its functions in.
 *
 * ---- A plugin on one page ----
 *
 *   #include "ringmq_plugin.h"
 *
 *   static int32_t on_publish(void *instance, const ringmq_api *api, ringmq_call call,
 *                             const ringmq_client *client, const ringmq_message *message)
 *   {
 *       (void)instance, (void)message;
 *       return api->add_user_property(call, ringmq_text("sender"), client->client_id);
 *   }
 *
 *   const ringmq_plugin_table ringmq_plugin = {
 *       RINGMQ_PLUGIN_HEAD,
 *       .publish = on_publish,
 *   };
 *
 *   cc -shared -fPIC -O2 -Wall -o sender.so sender.c
 *
 *   [[plugin]]                        # in the file given to `ringmq --config`
 *   name = "sender"
 *   kind = "library"
 *   path = "/usr/local/lib/ringmq/sender.so"
 *   options = { key = "value" }       # what create() reads; may be left out
 *
 * `ringmq check --config FILE` loads the library, makes one instance and says what is wrong.
 *
 * ---- Who owns what ----
 *
 * Nobody ever frees what the other has allocated, and nobody keeps a pointer of the other's.
 *
 * - What the broker shows is a view: a pointer and a size, readable until the hook that was given it returns, and never
 *   after. This holds for everything that is reached through a hook's parameters or written by a function of ringmq_api.
 *   Copy what must live on. Views are not terminated by a zero byte, and may not be written to.
 * - What a plugin hands in is copied, or refused, before the function of ringmq_api returns. The plugin may then do with
 *   its memory what it likes: it can come from the stack.
 * - A message is changed only through functions of ringmq_api. Views stay what they were: all of them show the message as
 *   it was when the hook began. The changes are applied, in their order, when the hook returns RINGMQ_ALLOW; a hook that
 *   denies or fails leaves the message as it was. The next plugin of the chain sees the changed message.
 * - The one pointer that the broker keeps is `instance`. It is the plugin's, the broker never looks at what it points
 *   to, and hands it back in each call until `destroy`.
 *
 * ---- The call handle ----
 *
 * Each call of a hook has a handle of its own, `ringmq_call`: a number, not a pointer. It is good until the hook returns,
 * on the thread on which the hook was called. A function of ringmq_api that gets any other handle (kept from an earlier
 * call, or used on another thread) changes nothing, returns RINGMQ_STALE, and is counted and named in the broker's log.
 *
 * ---- Threads ----
 *
 * The broker runs one shard a core and shares nothing between them; a plugin has one instance for each shard. `create`,
 * every hook and `destroy` of one instance are called on the thread of its shard, one at a time: what belongs to an
 * instance needs no lock. Instances run at the same time as each other: global and static variables are shared by all and
 * need what shared variables need. Two [[plugin]] entries with the same path share them, too.
 *
 * A plugin may have threads of its own. Of the functions of ringmq_api they may call `answer` alone, from when `create`
 * was called until `destroy` returns: `destroy` ends them and waits for their end.
 *
 * A hook runs on the thread that carries the shard's whole traffic. It must not wait: no file, no lookup, no lock that is
 * held for long. The broker measures each call and names slow ones in its log (`slow_ms`).
 *
 * ---- What a hook returns ----
 *
 *   RINGMQ_ALLOW (0)      go on
 *   0x80 to 0xFF          deny: the MQTT 5 reason code that the client gets, for instance RINGMQ_NOT_AUTHORIZED
 *                         (`connect`, `authorize_subscribe`, `publish`, `authorize_publish`)
 *   RINGMQ_SKIP (1)       `deliver` alone: this subscriber does not get the message
 *   RINGMQ_LATER (2)      `connect` alone: `answer` follows, see "Answers that come later"
 *   below 0               failed; the result of a function of ringmq_api may be handed on as it is. The broker counts
 *                         it, logs it with what `explain` said, and does what `on_error` of the configuration says:
 *                         deny or pass
 *
 * Anything else is a failure. No exception and no panic may leave a hook: it ends the process.
 *
 * ---- Answers that come later ----
 *
 * A `connect` hook that would have to wait (for a database, a web service, a slow hash) gets the number of its question by
 * `question`, copies what it needs, and returns RINGMQ_LATER. The client waits, and nobody else does. Any thread then calls
 * `answer` with the number (the pointer to this function may be kept): the client goes on from there, and the hook is not called again for this CONNECT. The next
 * plugins of the chain are asked once the answer is RINGMQ_ALLOW.
 *
 * A client whose answer does not come within the broker's `connect_timeout_ms` is told RINGMQ_SERVER_UNAVAILABLE. The first
 * answer to a question counts. Another one, one that comes too late, and one for a client that is gone are counted (`plugins/answers/unasked` below
 * $SYS/broker), and change nothing.
 *
 * ---- Versions ----
 *
 * Structures only ever grow at their end, and each says its size: the plugin's table in `size`, everything that the
 * broker shows in its first member. Types without a size (ringmq_view, ringmq_option, ringmq_address, ringmq_call,
 * ringmq_session_limit) stay as they are. So:
 *
 * - A plugin built with an older header loads: hooks that its table does not have yet count as absent.
 * - A plugin built with a newer header loads as long as it uses no hook that the broker does not know. Members that the
 *   broker may not have yet are asked for with RINGMQ_HAS before they are used:
 *       if (RINGMQ_HAS(api, set_limit)) ...
 * - Another RINGMQ_ABI_MAJOR is refused.
 *
 * A table is found under the symbol `ringmq_plugin`. A library is never unloaded while the process runs.
 */
#ifndef RINGMQ_PLUGIN_H
#define RINGMQ_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RINGMQ_ABI_MAJOR 1
#define RINGMQ_ABI_MINOR 1

/* The first member of every table: tells it from anything else that has its name. */
#define RINGMQ_MAGIC 0x714D6752u

/* ---- Results ---- */

/* Of hooks and of functions. */
#define RINGMQ_ALLOW 0
#define RINGMQ_OK 0
/* Of `deliver`: not to this subscriber. */
#define RINGMQ_SKIP 1
/* Of `connect`: the answer follows. */
#define RINGMQ_LATER 2
/* Of hooks: something went wrong. */
#define RINGMQ_FAILED -1
/* Of functions: the handle is not that of the running call. Nothing was done. */
#define RINGMQ_STALE -2
/* A null pointer with a size, or a number that means nothing here. */
#define RINGMQ_BAD_ARGUMENT -3
/* Not UTF-8, or a text with a zero byte in it. */
#define RINGMQ_BAD_TEXT -4
/* Not a topic that one may publish to: empty, a wildcard, below $SYS, too long or with too many levels. */
#define RINGMQ_BAD_TOPIC -5
/* Larger than MQTT or the broker's limits have room for. */
#define RINGMQ_TOO_LARGE -6
/* The function has no meaning in the running hook. */
#define RINGMQ_NOT_HERE -7
/* There is no such property, or no such question. */
#define RINGMQ_NONE -8
/* As much waits as may. */
#define RINGMQ_BUSY -9

/* Reason codes to deny with; any other of MQTT 5 that the answer to the client may carry does as well. Clients of 3.1
 * and 3.1.1 are told what their version has for it. */
#define RINGMQ_UNSPECIFIED_ERROR 0x80
#define RINGMQ_IMPLEMENTATION_ERROR 0x83
#define RINGMQ_BAD_USER_NAME_OR_PASSWORD 0x86
#define RINGMQ_NOT_AUTHORIZED 0x87
#define RINGMQ_SERVER_UNAVAILABLE 0x88
#define RINGMQ_SERVER_BUSY 0x89
#define RINGMQ_BANNED 0x8A
#define RINGMQ_TOPIC_NAME_INVALID 0x90
#define RINGMQ_QUOTA_EXCEEDED 0x97
#define RINGMQ_PAYLOAD_FORMAT_INVALID 0x99

/* ---- What is handed over ---- */

/* Bytes of somebody else, see "Who owns what". Absent: `bytes` is null. */
typedef struct ringmq_view {
    const uint8_t *bytes;
    size_t size;
} ringmq_view;

/* See "The call handle". */
typedef struct ringmq_call {
    uint64_t token;
} ringmq_call;

typedef struct ringmq_option {
    ringmq_view name;
    ringmq_view value;
} ringmq_option;

/* `ip` in network order; for family 4 the first 4 bytes. */
typedef struct ringmq_address {
    uint8_t ip[16];
    uint16_t port;
    /* 4, 6, or 0: not known. */
    uint8_t family;
    uint8_t reserved;
} ringmq_address;

/* What an instance is made for. */
typedef struct ringmq_setup {
    uint32_t size;
    /* The broker's. */
    uint16_t abi_major;
    uint16_t abi_minor;
    /* From 0. */
    uint16_t shard;
    uint16_t reserved;
    uint32_t option_count;
    /* Each name once; numbers, true and false as they are written. */
    const ringmq_option *options;
    /* `name` of the configuration. */
    ringmq_view plugin_name;
    ringmq_view broker_version;
} ringmq_setup;

/* A client, or who else a message comes from. */
typedef struct ringmq_client {
    uint32_t size;
    uint16_t shard;
    /* 3: MQTT 3.1, 4: 3.1.1, 5: 5.0, 0: not known. */
    uint8_t protocol;
    uint8_t reserved;
    ringmq_view client_id;
    /* Absent: none was given. */
    ringmq_view user_name;
    ringmq_address peer;
    /* The address of the broker's that the client connected to. */
    ringmq_address listener;
} ringmq_client;

/* A CONNECT packet. Its user properties are read with `user_property`. */
typedef struct ringmq_connect {
    uint32_t size;
    /* As asked for, with `has_session_expiry`: clients of 3.1 and 3.1.1 cannot ask. */
    uint32_t session_expiry_s;
    /* As asked for; 0: none. */
    uint16_t keep_alive_s;
    uint8_t has_session_expiry;
    uint8_t clean_start;
    uint8_t has_will;
    uint8_t will_qos;
    uint8_t will_retain;
    uint8_t reserved;
    /* Absent: none was given. */
    ringmq_view password;
    /* Absent without a will. */
    ringmq_view will_topic;
    ringmq_view will_payload;
} ringmq_connect;

/* One filter of a SUBSCRIBE packet. */
typedef struct ringmq_subscription {
    uint32_t size;
    /* As asked for; `set_qos` lowers what is granted. */
    uint8_t qos;
    uint8_t reserved[3];
    /* With `$share/NAME/` in front, if it has that. */
    ringmq_view filter;
} ringmq_subscription;

/* A message. Its properties are read with `user_property`, `property_text` and `property_number`. */
typedef struct ringmq_message {
    uint32_t size;
    uint8_t qos;
    uint8_t retain;
    uint16_t reserved;
    ringmq_view topic;
    ringmq_view payload;
} ringmq_message;

/* Something that has happened to a client. */
typedef struct ringmq_event {
    uint32_t size;
    /* RINGMQ_EVENT_. */
    uint32_t kind;
    /* RINGMQ_EVENT_CONNECTED alone: the session was there before. */
    uint8_t is_resumed;
    uint8_t reserved[7];
    /* RINGMQ_EVENT_DISCONNECTED alone: why, in words to read, not to compare. */
    ringmq_view why;
} ringmq_event;

#define RINGMQ_EVENT_CONNECTED 1
#define RINGMQ_EVENT_DISCONNECTED 2
/* The client has connected again elsewhere; RINGMQ_EVENT_DISCONNECTED of the old connection follows. */
#define RINGMQ_EVENT_TAKEN_OVER 3
#define RINGMQ_EVENT_SESSION_ENDED 4

/* A message that did not reach somebody. */
typedef struct ringmq_undelivered {
    uint32_t size;
    uint32_t reserved;
    /* Who did not get it, or whose it was when it was denied; absent: no one client. */
    ringmq_view client_id;
    ringmq_view topic;
    /* A short name such as `queue_full`; later versions may know more of them. */
    ringmq_view why;
} ringmq_undelivered;

/* Properties of a message, for `property_text`, `property_number` and what changes them: the identifiers of MQTT 5. */
#define RINGMQ_PAYLOAD_FORMAT 0x01   /* number: 1 says that the payload is UTF-8 */
#define RINGMQ_MESSAGE_EXPIRY 0x02   /* number: seconds */
#define RINGMQ_CONTENT_TYPE 0x03     /* text */
#define RINGMQ_RESPONSE_TOPIC 0x08   /* text, a topic */
#define RINGMQ_CORRELATION_DATA 0x09 /* any bytes */

/* Bounds of a session, for `set_limit` in `connect`, each in place of the broker's own. The budgets of a shard hold in any
 * case. */
#define RINGMQ_LIMIT_SESSION_EXPIRY_S 1
#define RINGMQ_LIMIT_KEEP_ALIVE_S 2
#define RINGMQ_LIMIT_INFLIGHT 3
#define RINGMQ_LIMIT_QUEUE_MESSAGES 4
#define RINGMQ_LIMIT_QUEUE_BYTES 5
#define RINGMQ_LIMIT_SUBSCRIPTIONS 6

/* A bound of a session, for `answer`; `limit` is RINGMQ_LIMIT_. */
typedef struct ringmq_session_limit {
    uint32_t limit;
    /* 0. */
    uint32_t reserved;
    uint64_t value;
} ringmq_session_limit;

#define RINGMQ_LOG_ERROR 1
#define RINGMQ_LOG_WARN 2
#define RINGMQ_LOG_INFO 3
#define RINGMQ_LOG_DEBUG 4

/* ---- What the broker does for a plugin ----
 *
 * All of it returns RINGMQ_OK or a number below 0; nothing is changed then. Views that are handed in are copied.
 */
typedef struct ringmq_api {
    uint32_t size;
    uint16_t abi_major;
    uint16_t abi_minor;

    /* In every hook, and in `create`. */

    /* A line in the broker's log; `level` is RINGMQ_LOG_. At most 1024 bytes are kept. */
    int32_t (*log)(ringmq_call call, uint32_t level, ringmq_view text);
    /* Why the hook is about to fail, for the operator. At most 1024 bytes are kept. */
    int32_t (*explain)(ringmq_call call, ringmq_view text);

    /* In `connect` (of the CONNECT packet), `publish`, `authorize_publish` and `deliver`. */

    /* The user property number `index`, from 0, in the order in which they arrived; RINGMQ_NONE past the last one. Reading
     * them one after the other is as fast as it gets; a jump back begins at the first. */
    int32_t (*user_property)(ringmq_call call, uint32_t index, ringmq_view *name, ringmq_view *value);

    /* In `publish`, `authorize_publish` and `deliver`. RINGMQ_NONE: the message does not have it. */

    int32_t (*property_text)(ringmq_call call, uint32_t property, ringmq_view *value);
    int32_t (*property_number)(ringmq_call call, uint32_t property, uint32_t *value);

    /* In `publish`. */

    int32_t (*set_topic)(ringmq_call call, ringmq_view topic);
    int32_t (*set_payload)(ringmq_call call, ringmq_view payload);
    /* 0 to 2: what subscribers get at most; the publisher is answered as it published. In `authorize_subscribe`, too: the
     * QoS to grant, if it is lower than what was asked for. */
    int32_t (*set_qos)(ringmq_call call, uint32_t qos);
    /* 0 or 1. */
    int32_t (*set_retain)(ringmq_call call, uint32_t retain);
    int32_t (*set_property_text)(ringmq_call call, uint32_t property, ringmq_view value);
    int32_t (*set_property_number)(ringmq_call call, uint32_t property, uint32_t value);
    /* Not an error if the message does not have it. */
    int32_t (*remove_property)(ringmq_call call, uint32_t property);
    /* Behind those that are there; several may have one name. What is removed in the same call makes no room for it. */
    int32_t (*add_user_property)(ringmq_call call, ringmq_view name, ringmq_view value);
    /* All of that name by one, in the place of the first; added if there is none. */
    int32_t (*replace_user_property)(ringmq_call call, ringmq_view name, ringmq_view value);
    /* All of that name; not an error if there is none. */
    int32_t (*remove_user_property)(ringmq_call call, ringmq_view name);

    /* In `connect`; `limit` is RINGMQ_LIMIT_. */
    int32_t (*set_limit)(ringmq_call call, uint32_t limit, uint64_t value);
    /* Since 1.1. The number of the question whether this client may connect, for `answer`. RINGMQ_BUSY: as many clients wait
     * as may (`questions_max`), and the hook has to answer now. */
    int32_t (*question)(ringmq_call call, uint64_t *number);

    /* Since 1.1. On any thread, without a handle. `verdict` is RINGMQ_ALLOW or a reason code; the `limit_count` bounds are those
     * of the session, as if `set_limit` had set them. RINGMQ_BUSY: the shard has no room for it yet, try again. RINGMQ_NONE: no
     * instance has asked that question. RINGMQ_BAD_ARGUMENT: the verdict or a bound means nothing.
     * RINGMQ_OK does not say that the client still waits. */
    int32_t (*answer)(uint64_t number, int32_t verdict, const ringmq_session_limit *limits, size_t limit_count);
} ringmq_api;

/* ---- What a plugin is ----
 *
 * Hooks that are null do not exist: the broker pays nothing for them. RINGMQ_PLUGIN_HEAD fills in the members in front
 * of them.
 */
typedef struct ringmq_plugin_table {
    uint32_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;
    uint32_t reserved;

    /* Makes an instance for one shard: reads its options and sets `*instance`. Failing, the broker does not start and
     * says what `explain` said; `destroy` is not called then. Absent: `instance` is null in every hook. */
    int32_t (*create)(const ringmq_api *api, ringmq_call call, const ringmq_setup *setup, void **instance);
    /* The last call with this instance. */
    void (*destroy)(void *instance);

    /* A client connects, its packet is valid. `set_limit` sets bounds for its session. Denied, it is told the reason in
     * CONNACK. RINGMQ_LATER: `answer` says it. */
    int32_t (*connect)(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_connect *connect);
    /* May this client have this subscription? Denied, SUBACK says so for this filter alone. */
    int32_t (*authorize_subscribe)(void *instance, const ringmq_api *api, ringmq_call call,
                                   const ringmq_client *client, const ringmq_subscription *subscription);
    /* May this client publish this message? It is the one that all publish hooks have made. Denied as in `publish`. */
    int32_t (*authorize_publish)(void *instance, const ringmq_api *api, ringmq_call call,
                                 const ringmq_client *client, const ringmq_message *message);
    /* Once for each message, where it comes in (wills and what a bridge brings in included, $SYS not), before it is
     * authorized, retained or routed. What the functions of ringmq_api make of it is what everybody gets: subscribers, the
     * store of retained messages and bridges. Denied, PUBACK or PUBREC carries the reason; a message of QoS 0 is dropped. */
    int32_t (*publish)(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message);
    /* Once for each message and subscriber, just before it is sent or queued, with the QoS and retain flag as
     * published. RINGMQ_SKIP leaves this subscriber out. */
    int32_t (*deliver)(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *receiver,
                       const ringmq_message *message);
    /* A subscription is gone because its client asked for it. */
    int32_t (*unsubscribed)(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                            ringmq_view filter);
    /* Connections and sessions begin and end. */
    int32_t (*event)(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                     const ringmq_event *event);
    /* A message did not reach somebody. May come in floods, at the worst of times. */
    int32_t (*dropped)(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_undelivered *drop);
    /* About once a second. */
    int32_t (*tick)(void *instance, const ringmq_api *api, ringmq_call call);
} ringmq_plugin_table;

/* ---- For plugins ---- */

#define RINGMQ_PLUGIN_HEAD \
    .magic = RINGMQ_MAGIC, .abi_major = RINGMQ_ABI_MAJOR, .abi_minor = RINGMQ_ABI_MINOR, \
    .size = sizeof(ringmq_plugin_table), .reserved = 0

/* Whether what the broker shows has this member: true for all that this header has, unless the broker is older. */
#define RINGMQ_HAS(shown, member) \
    ((shown)->size >= (size_t)((const char *)(&(shown)->member + 1) - (const char *)(shown)))

/* What every plugin defines; exported by this, even with -fvisibility=hidden. */
extern __attribute__((visibility("default"))) const ringmq_plugin_table ringmq_plugin;

/* A view of a text that ends with a zero byte; of null, an absent one. */
static inline ringmq_view ringmq_text(const char *text)
{
    ringmq_view view;
    view.bytes = (const uint8_t *)text;
    view.size = text == NULL ? 0 : strlen(text);
    return view;
}

static inline ringmq_view ringmq_bytes(const void *bytes, size_t size)
{
    ringmq_view view;
    view.bytes = (const uint8_t *)bytes;
    view.size = size;
    return view;
}

/* Whether a view is this text, byte for byte. */
static inline int ringmq_is(ringmq_view view, const char *text)
{
    return view.bytes != NULL && view.size == strlen(text) && memcmp(view.bytes, text, view.size) == 0;
}

/* The value of an option; absent when the configuration does not have it. */
static inline ringmq_view ringmq_option_value(const ringmq_setup *setup, const char *name)
{
    uint32_t index;
    for (index = 0; index < setup->option_count; index++) {
        if (ringmq_is(setup->options[index].name, name)) {
            return setup->options[index].value;
        }
    }
    return ringmq_text(NULL);
}

#ifdef __cplusplus
}
#endif

#endif
