/*
 * Shows all that it is shown: of its instance, a client and a message as the message's payload; of a CONNECT as the reason for
 * which it fails.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "ringmq_plugin.h"

#define TEXT_SIZE_MAX 256

static int32_t create(const ringmq_api *api, ringmq_call call, const ringmq_setup *setup, void **instance)
{
    char *text = malloc(TEXT_SIZE_MAX);
    uint32_t index;
    int size;
    (void)api, (void)call;
    if (text == NULL || !RINGMQ_HAS(setup, broker_version) || setup->broker_version.size == 0) {
        return RINGMQ_FAILED;
    }
    size = snprintf(text, TEXT_SIZE_MAX, "%.*s %u:", (int)setup->plugin_name.size,
                    (const char *)setup->plugin_name.bytes, (unsigned)setup->shard);
    for (index = 0; index < setup->option_count; index++) {
        const ringmq_option *option = &setup->options[index];
        size += snprintf(text + size, TEXT_SIZE_MAX - (size_t)size, " %.*s=%.*s", (int)option->name.size,
                         (const char *)option->name.bytes, (int)option->value.size,
                         (const char *)option->value.bytes);
    }
    *instance = text;
    return RINGMQ_OK;
}

static void destroy(void *instance)
{
    free(instance);
}

static void show_address(const ringmq_address *address, char *text, size_t size)
{
    char ip[INET6_ADDRSTRLEN] = "-";
    if (address->family != 0) {
        inet_ntop(address->family == 4 ? AF_INET : AF_INET6, address->ip, ip, sizeof ip);
    }
    snprintf(text, size, "%s:%u", ip, (unsigned)address->port);
}

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    char text[2 * TEXT_SIZE_MAX], peer[64], listener[64];
    if (!RINGMQ_HAS(api, set_limit) || !RINGMQ_HAS(client, listener) || !RINGMQ_HAS(message, payload)) {
        return RINGMQ_FAILED;
    }
    show_address(&client->peer, peer, sizeof peer);
    show_address(&client->listener, listener, sizeof listener);
    snprintf(text, sizeof text, "%s: %.*s %.*s %u %s %s %.*s %.*s %u %u", (const char *)instance,
             (int)client->client_id.size, (const char *)client->client_id.bytes, (int)client->user_name.size,
             (const char *)client->user_name.bytes, (unsigned)client->protocol, peer, listener,
             (int)message->topic.size, (const char *)message->topic.bytes, (int)message->payload.size,
             (const char *)message->payload.bytes, (unsigned)message->qos, (unsigned)message->retain);
    return api->set_payload(call, ringmq_text(text));
}

static int32_t on_connect(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_connect *connect)
{
    /* Also backwards, and one for the second time. */
    static const uint32_t order[] = {1, 0, 1};
    char text[2 * TEXT_SIZE_MAX], properties[TEXT_SIZE_MAX] = "";
    size_t index;
    (void)instance;
    for (index = 0; index < sizeof order / sizeof *order; index++) {
        ringmq_view name, value;
        size_t size = strlen(properties);
        int32_t result = api->user_property(call, order[index], &name, &value);
        if (result != RINGMQ_OK) {
            return result;
        }
        snprintf(properties + size, sizeof properties - size, " %.*s=%.*s", (int)name.size, (const char *)name.bytes,
                 (int)value.size, (const char *)value.bytes);
    }
    snprintf(text, sizeof text, "%.*s %u %u %u %u %.*s %.*s %u %u%s %.*s %s %u", (int)connect->password.size,
             (const char *)connect->password.bytes, (unsigned)connect->clean_start, (unsigned)connect->keep_alive_s,
             (unsigned)connect->has_session_expiry, (unsigned)connect->session_expiry_s,
             (int)connect->will_topic.size, (const char *)connect->will_topic.bytes, (int)connect->will_payload.size,
             (const char *)connect->will_payload.bytes, (unsigned)connect->will_qos, (unsigned)connect->will_retain,
             properties, (int)client->client_id.size, (const char *)client->client_id.bytes,
             client->user_name.bytes == NULL ? "-" : "user", (unsigned)client->peer.family);
    api->explain(call, ringmq_text(text));
    return RINGMQ_FAILED;
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .create = create,
    .destroy = destroy,
    .connect = on_connect,
    .publish = publish,
};
