/*
 * A plugin built with an older header: what it knows of the ABI is written out here, as it would have been when tables
 * ended with `authorize_publish`, the functions with `set_topic`, and what is shown of a client with its id.
 */
#include <stddef.h>
#include <stdint.h>

struct view {
    const uint8_t *bytes;
    size_t size;
};

struct call {
    uint64_t token;
};

struct client {
    uint32_t size;
    uint16_t shard;
    uint8_t protocol;
    uint8_t reserved;
    struct view client_id;
};

struct message {
    uint32_t size;
    uint8_t qos;
    uint8_t retain;
    uint16_t reserved;
    struct view topic;
};

struct api {
    uint32_t size;
    uint16_t abi_major;
    uint16_t abi_minor;
    int32_t (*log)(struct call, uint32_t, struct view);
    int32_t (*explain)(struct call, struct view);
};

struct table {
    uint32_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;
    uint32_t reserved;
    int32_t (*create)(const struct api *, struct call, const void *, void **);
    void (*destroy)(void *);
    int32_t (*connect)(void *, const struct api *, struct call, const struct client *, const void *);
    int32_t (*authorize_subscribe)(void *, const struct api *, struct call, const struct client *, const void *);
    int32_t (*authorize_publish)(void *, const struct api *, struct call, const struct client *,
                                 const struct message *);
};

static int32_t authorize_publish(void *instance, const struct api *api, struct call call, const struct client *client,
                                 const struct message *message)
{
    static const uint8_t why[] = "the older plugin says no";
    struct view text = {why, sizeof why - 1};
    if (instance != NULL || api->size < sizeof *api || client->size < sizeof *client || message->size < sizeof *message) {
        return -1;
    }
    if (message->topic.size > 0 && message->topic.bytes[0] == 'x') {
        return 0x87;
    }
    if (message->topic.size > 0 && message->topic.bytes[0] == 'y') {
        api->explain(call, text);
        return -1;
    }
    return 0;
}

/* What stands behind an older table belongs to somebody else, and must not be read as hooks. */
__attribute__((visibility("default"))) const struct {
    struct table table;
    uint64_t behind[16];
} ringmq_plugin = {
    .table = {.magic = 0x714D6752u,
              .abi_major = 1,
              .size = sizeof(struct table),
              .authorize_publish = authorize_publish},
    .behind = {0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD},
};
