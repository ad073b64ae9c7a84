/*
 * Adds user properties to messages of chosen topics.
 *
 * options:
 *   prefix = "sensors/"      topics that begin with it; all without it
 *   sender = "from"          name of a property with the client's id
 *   count = "number"         name of a property with how many this shard has had
 *   site = "..."             value of a property `site`
 */
#include <stdio.h>
#include <stdlib.h>

#include "ringmq_plugin.h"

#define NAME_SIZE_MAX 64
#define SITE_SIZE_MAX 256

/* Copies: what create() is shown ends with it. A size of 0: not configured. */
struct instance {
    char prefix[NAME_SIZE_MAX], sender[NAME_SIZE_MAX], count[NAME_SIZE_MAX], site[SITE_SIZE_MAX];
    size_t prefix_size, sender_size, count_size, site_size;
    unsigned long long messages;
};

static int take(const ringmq_setup *setup, const char *name, char *place, size_t room, size_t *size)
{
    ringmq_view value = ringmq_option_value(setup, name);
    if (value.size > room) {
        return -1;
    }
    if (value.size > 0) {
        memcpy(place, value.bytes, value.size);
    }
    *size = value.size;
    return 0;
}

static int32_t create(const ringmq_api *api, ringmq_call call, const ringmq_setup *setup, void **instance)
{
    struct instance *self = calloc(1, sizeof *self);
    if (self == NULL) {
        return RINGMQ_FAILED;
    }
    if (take(setup, "prefix", self->prefix, sizeof self->prefix, &self->prefix_size) != 0 ||
        take(setup, "sender", self->sender, sizeof self->sender, &self->sender_size) != 0 ||
        take(setup, "count", self->count, sizeof self->count, &self->count_size) != 0 ||
        take(setup, "site", self->site, sizeof self->site, &self->site_size) != 0) {
        api->explain(call, ringmq_text("options: names have at most 64 bytes, the site at most 256"));
        free(self);
        return RINGMQ_FAILED;
    }
    if (self->sender_size + self->count_size + self->site_size == 0) {
        api->explain(call, ringmq_text("options: set one of sender, count and site"));
        free(self);
        return RINGMQ_FAILED;
    }
    *instance = self;
    return RINGMQ_OK;
}

static void destroy(void *instance)
{
    free(instance);
}

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    struct instance *self = instance;
    int32_t result = RINGMQ_OK;
    if (message->topic.size < self->prefix_size ||
        memcmp(message->topic.bytes, self->prefix, self->prefix_size) != 0) {
        return RINGMQ_ALLOW;
    }
    self->messages++;
    if (self->sender_size > 0) {
        result = api->add_user_property(call, ringmq_bytes(self->sender, self->sender_size), client->client_id);
    }
    if (result == RINGMQ_OK && self->count_size > 0) {
        char text[32];
        int size = snprintf(text, sizeof text, "%llu", self->messages);
        result = api->add_user_property(call, ringmq_bytes(self->count, self->count_size),
                                        ringmq_bytes(text, (size_t)size));
        /* The broker has its own copy. */
        memset(text, '!', sizeof text);
    }
    if (result == RINGMQ_OK && self->site_size > 0) {
        char *copy = malloc(self->site_size);
        if (copy == NULL) {
            return RINGMQ_FAILED;
        }
        memcpy(copy, self->site, self->site_size);
        result = api->add_user_property(call, ringmq_text("site"), ringmq_bytes(copy, self->site_size));
        memset(copy, '!', self->site_size);
        free(copy);
    }
    return result;
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .create = create,
    .destroy = destroy,
    .publish = publish,
};
