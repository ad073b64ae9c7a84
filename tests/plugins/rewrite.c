/*
 * Uses every function that reads or changes a message, and checks that what it was shown stays what it was.
 */
#include <stdio.h>

#include "ringmq_plugin.h"

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    char text[64];
    ringmq_view name, value, content_type, correlation;
    uint32_t expiry = 0, count = 0;
    int32_t result;
    (void)instance;

    if (api->property_text(call, RINGMQ_CONTENT_TYPE, &content_type) != RINGMQ_OK ||
        api->property_text(call, RINGMQ_CORRELATION_DATA, &correlation) != RINGMQ_OK ||
        api->property_number(call, RINGMQ_MESSAGE_EXPIRY, &expiry) != RINGMQ_OK) {
        return RINGMQ_FAILED;
    }
    while ((result = api->user_property(call, count, &name, &value)) == RINGMQ_OK) {
        count++;
    }
    if (result != RINGMQ_NONE) {
        return result;
    }
    result = api->set_topic(call, ringmq_text("rewritten/topic"));
    /* The view of the topic is still that of the old one, whatever happens to the message. */
    if (result != RINGMQ_OK || !ringmq_is(message->topic, "all")) {
        return RINGMQ_FAILED;
    }
    snprintf(text, sizeof text, "%.*s %u properties, %u s", (int)content_type.size, (const char *)content_type.bytes,
             (unsigned)count, (unsigned)expiry);
    if (api->set_payload(call, ringmq_text("overwritten below")) != RINGMQ_OK ||
        api->set_payload(call, ringmq_text(text)) != RINGMQ_OK || !ringmq_is(message->payload, "payload")) {
        return RINGMQ_FAILED;
    }
    memset(text, '!', sizeof text);
    if (api->set_qos(call, 2) != RINGMQ_OK || api->set_retain(call, 1) != RINGMQ_OK ||
        api->set_property_text(call, RINGMQ_CONTENT_TYPE, correlation) != RINGMQ_OK ||
        api->set_property_text(call, RINGMQ_RESPONSE_TOPIC, ringmq_text("answers")) != RINGMQ_OK ||
        api->set_property_text(call, RINGMQ_CORRELATION_DATA, ringmq_bytes("\0\xff", 2)) != RINGMQ_OK ||
        api->set_property_number(call, RINGMQ_PAYLOAD_FORMAT, 1) != RINGMQ_OK ||
        api->set_property_number(call, RINGMQ_MESSAGE_EXPIRY, expiry + 1) != RINGMQ_OK ||
        api->replace_user_property(call, ringmq_text("b"), client->client_id) != RINGMQ_OK ||
        api->remove_user_property(call, ringmq_text("c")) != RINGMQ_OK ||
        api->add_user_property(call, ringmq_text("a"), message->topic) != RINGMQ_OK) {
        return RINGMQ_FAILED;
    }
    return RINGMQ_ALLOW;
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .publish = publish,
};
