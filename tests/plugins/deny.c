/*
 * Has every hook, and in each does what the topic, filter or client id asks for by a word in it:
 *
 *   deny    refuses: Not authorized, or Quota exceeded with `quota`
 *   fail    fails, with an explanation
 *   odd     returns a number that means nothing
 *   skip    is not delivered
 *   low     is granted QoS 0; a client so named gets a short session
 *   spoil   changes the message, then fails: nothing of it is seen
 *
 * Events are counted; `tick` logs the counts when they have changed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ringmq_plugin.h"

struct instance {
    unsigned long events, drops, unsubscribed, told;
};

static int has(ringmq_view view, const char *word)
{
    size_t size = strlen(word), at;
    for (at = 0; at + size <= view.size; at++) {
        if (memcmp(view.bytes + at, word, size) == 0) {
            return 1;
        }
    }
    return 0;
}

static int32_t judge(const ringmq_api *api, ringmq_call call, ringmq_view words)
{
    if (has(words, "quota")) {
        return RINGMQ_QUOTA_EXCEEDED;
    }
    if (has(words, "deny")) {
        return RINGMQ_NOT_AUTHORIZED;
    }
    if (has(words, "fail")) {
        api->explain(call, ringmq_text("it was asked to fail"));
        return RINGMQ_FAILED;
    }
    return has(words, "odd") ? 42 : RINGMQ_ALLOW;
}

static int32_t create(const ringmq_api *api, ringmq_call call, const ringmq_setup *setup, void **instance)
{
    (void)api, (void)call, (void)setup;
    *instance = calloc(1, sizeof(struct instance));
    return *instance == NULL ? RINGMQ_FAILED : RINGMQ_OK;
}

static void destroy(void *instance)
{
    free(instance);
}

static int32_t on_connect(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_connect *connect)
{
    (void)instance;
    if (ringmq_is(connect->password, "wrong")) {
        return RINGMQ_BAD_USER_NAME_OR_PASSWORD;
    }
    if (has(client->client_id, "low")) {
        int32_t result = api->set_limit(call, RINGMQ_LIMIT_SESSION_EXPIRY_S, 5);
        if (result != RINGMQ_OK) {
            return result;
        }
    }
    return judge(api, call, client->client_id);
}

static int32_t authorize_subscribe(void *instance, const ringmq_api *api, ringmq_call call,
                                   const ringmq_client *client, const ringmq_subscription *subscription)
{
    (void)instance, (void)client;
    if (has(subscription->filter, "low")) {
        return api->set_qos(call, 0);
    }
    return judge(api, call, subscription->filter);
}

static int32_t authorize_publish(void *instance, const ringmq_api *api, ringmq_call call,
                                 const ringmq_client *client, const ringmq_message *message)
{
    (void)instance, (void)client;
    return judge(api, call, message->topic);
}

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    (void)instance, (void)client;
    if (has(message->topic, "spoil")) {
        api->set_payload(call, ringmq_text("spoiled"));
        api->add_user_property(call, ringmq_text("spoiled"), ringmq_text("yes"));
        api->set_topic(call, ringmq_text("spoiled"));
        return RINGMQ_FAILED;
    }
    return RINGMQ_ALLOW;
}

static int32_t deliver(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *receiver,
                       const ringmq_message *message)
{
    (void)instance, (void)api, (void)call, (void)receiver;
    return has(message->topic, "skip") ? RINGMQ_SKIP : RINGMQ_ALLOW;
}

static int32_t unsubscribed(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                            ringmq_view filter)
{
    (void)api, (void)call, (void)client, (void)filter;
    ((struct instance *)instance)->unsubscribed++;
    return RINGMQ_OK;
}

static int32_t event(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                     const ringmq_event *event)
{
    (void)api, (void)call, (void)client, (void)event;
    ((struct instance *)instance)->events++;
    return RINGMQ_OK;
}

static int32_t dropped(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_undelivered *undelivered)
{
    (void)api, (void)call, (void)undelivered;
    ((struct instance *)instance)->drops++;
    return RINGMQ_OK;
}

static int32_t tick(void *instance, const ringmq_api *api, ringmq_call call)
{
    struct instance *self = instance;
    char text[128];
    unsigned long sum = self->events + self->drops + self->unsubscribed;
    if (sum == self->told) {
        return RINGMQ_OK;
    }
    self->told = sum;
    snprintf(text, sizeof text, "events %lu, drops %lu, unsubscribed %lu", self->events, self->drops,
             self->unsubscribed);
    return api->log(call, RINGMQ_LOG_INFO, ringmq_text(text));
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .create = create,
    .destroy = destroy,
    .connect = on_connect,
    .authorize_subscribe = authorize_subscribe,
    .authorize_publish = authorize_publish,
    .publish = publish,
    .deliver = deliver,
    .unsubscribed = unsubscribed,
    .event = event,
    .dropped = dropped,
    .tick = tick,
};
