/*
 * Does what a plugin must not do, as far as it can be refused: hands in what is not valid, uses handles that are not of
 * the running call. Each result is reported as a user property with the name of what was tried.
 *
 * The topic says which: `arguments`, `handles`, `flood`.
 */
#include <pthread.h>
#include <stdio.h>

#include "ringmq_plugin.h"

static const ringmq_api *functions;
static ringmq_call kept;
static int is_kept;

static int32_t report(const ringmq_api *api, ringmq_call call, const char *tried, int32_t result)
{
    char text[16];
    snprintf(text, sizeof text, "%d", (int)result);
    return api->add_user_property(call, ringmq_text(tried), ringmq_text(text));
}

static int32_t flood(const ringmq_api *api, ringmq_call call)
{
    int32_t result = RINGMQ_OK;
    uint32_t count;
    for (count = 0; count < 10000000 && result == RINGMQ_OK; count++) {
        result = api->remove_user_property(call, ringmq_text("none"));
    }
    return result;
}

static void arguments(const ringmq_api *api, ringmq_call call)
{
    static uint8_t large[70000];
    ringmq_view name, value;
    uint32_t number;
    memset(large, 'a', sizeof large);
    report(api, call, "null", api->set_payload(call, ringmq_bytes(NULL, 1)));
    report(api, call, "empty", api->add_user_property(call, ringmq_bytes(NULL, 0), ringmq_text("")));
    report(api, call, "utf8", api->add_user_property(call, ringmq_text("\xff"), ringmq_text("")));
    report(api, call, "utf8 cut", api->add_user_property(call, ringmq_text("v"), ringmq_text("\xe2\x82")));
    report(api, call, "zero byte", api->add_user_property(call, ringmq_bytes("a\0b", 3), ringmq_text("")));
    report(api, call, "long", api->add_user_property(call, ringmq_bytes(large, 65536), ringmq_text("")));
    report(api, call, "huge", api->set_payload(call, ringmq_bytes(large, SIZE_MAX)));
    report(api, call, "no topic", api->set_topic(call, ringmq_text("")));
    report(api, call, "wildcard", api->set_topic(call, ringmq_text("a/#")));
    report(api, call, "system", api->set_topic(call, ringmq_text("$SYS/broker")));
    report(api, call, "response topic", api->set_property_text(call, RINGMQ_RESPONSE_TOPIC, ringmq_text("+")));
    report(api, call, "no such property", api->set_property_text(call, 99, ringmq_text("")));
    report(api, call, "number as text", api->set_property_text(call, RINGMQ_MESSAGE_EXPIRY, ringmq_text("")));
    report(api, call, "payload format", api->set_property_number(call, RINGMQ_PAYLOAD_FORMAT, 2));
    report(api, call, "qos", api->set_qos(call, 3));
    report(api, call, "retain", api->set_retain(call, 2));
    report(api, call, "limit", api->set_limit(call, RINGMQ_LIMIT_INFLIGHT, 1));
    report(api, call, "level", api->log(call, 0, ringmq_text("x")));
    report(api, call, "out", api->user_property(call, 0, NULL, &value));
    report(api, call, "past the last", api->user_property(call, 1000000, &name, &value));
    report(api, call, "absent", api->property_number(call, RINGMQ_PAYLOAD_FORMAT, &number));
    report(api, call, "out of number", api->property_number(call, RINGMQ_MESSAGE_EXPIRY, NULL));
}

struct work {
    const ringmq_api *api;
    ringmq_call call;
    int32_t result;
};

static void *elsewhere(void *argument)
{
    struct work *work = argument;
    work->result = work->api->set_payload(work->call, ringmq_text("from another thread"));
    return NULL;
}

static void handles(const ringmq_api *api, ringmq_call call)
{
    struct work work = {api, call, 0};
    pthread_t thread;
    ringmq_call none = {0}, forged = {UINT64_MAX};
    if (is_kept) {
        report(api, call, "kept", api->set_payload(kept, ringmq_text("with a kept handle")));
    }
    report(api, call, "none", api->set_payload(none, ringmq_text("with no handle")));
    report(api, call, "forged", api->set_payload(forged, ringmq_text("with a forged handle")));
    if (pthread_create(&thread, NULL, elsewhere, &work) == 0) {
        pthread_join(thread, NULL);
        report(api, call, "elsewhere", work.result);
    }
    functions = api;
    kept = call;
    is_kept = 1;
}

/* Between hooks no handle is good. */
static void destroy(void *instance)
{
    (void)instance;
    if (is_kept) {
        functions->set_payload(kept, ringmq_text("after the last hook"));
    }
}

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    (void)instance, (void)client;
    if (ringmq_is(message->topic, "arguments")) {
        arguments(api, call);
    } else if (ringmq_is(message->topic, "handles")) {
        handles(api, call);
    } else if (ringmq_is(message->topic, "flood")) {
        return flood(api, call);
    }
    return RINGMQ_ALLOW;
}

static int32_t deliver(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *receiver,
                       const ringmq_message *message)
{
    (void)instance, (void)receiver, (void)message;
    return api->set_payload(call, ringmq_text("x")) == RINGMQ_NOT_HERE ? RINGMQ_SKIP : RINGMQ_ALLOW;
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .destroy = destroy,
    .publish = publish,
    .deliver = deliver,
};
