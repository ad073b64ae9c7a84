/*
 * Makes the changes that the payload asks for: for each a letter, a number of a name and one of a value. What is asked for
 * twice, and what is refused, counts as well.
 */
#include "ringmq_plugin.h"

/* Names and values to choose from. */
static const char *const texts[] = {"", "a", "b", "name", "value", "\xc3\xa9t\xc3\xa9", "x/y", "x/+", "$SYS/x", "\xff"};

static ringmq_view choose(uint8_t number)
{
    return ringmq_text(texts[number % (sizeof texts / sizeof *texts)]);
}

static void change(const ringmq_api *api, ringmq_call call, uint8_t letter, uint8_t first, uint8_t second)
{
    switch (letter % 13) {
    case 0: api->set_topic(call, choose(first)); break;
    case 1: api->set_payload(call, choose(first)); break;
    case 2: api->set_qos(call, first % 4u); break;
    case 3: api->set_retain(call, first % 3u); break;
    case 4: api->set_property_text(call, RINGMQ_CONTENT_TYPE, choose(first)); break;
    case 5: api->set_property_text(call, RINGMQ_RESPONSE_TOPIC, choose(first)); break;
    case 6: api->set_property_text(call, RINGMQ_CORRELATION_DATA, choose(first)); break;
    case 7: api->set_property_number(call, RINGMQ_PAYLOAD_FORMAT, first % 3u); break;
    case 8: api->set_property_number(call, RINGMQ_MESSAGE_EXPIRY, first); break;
    case 9: api->remove_property(call, first % 12u); break;
    case 10: api->add_user_property(call, choose(first), choose(second)); break;
    case 11: api->replace_user_property(call, choose(first), choose(second)); break;
    default: api->remove_user_property(call, choose(first)); break;
    }
}

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    size_t at;
    (void)instance, (void)client;
    for (at = 0; at + 3 <= message->payload.size; at += 3) {
        const uint8_t *bytes = message->payload.bytes + at;
        change(api, call, bytes[0], bytes[1], bytes[2]);
    }
    return RINGMQ_ALLOW;
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .publish = publish,
};
