/*
 * Goes astray when a topic asks for it: loops for ever, for a while, or reads where nothing is.
 */
#define _POSIX_C_SOURCE 200809L
#include "ringmq_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile int is_looping = 1;
static int *volatile nowhere = NULL;

static void loop_ms(long ms)
{
    struct timespec began, now;
    clock_gettime(CLOCK_MONOTONIC, &began);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000 < ms);
}

static int is_topic(const ringmq_message *message, const char *topic)
{
    size_t size = strlen(topic);
    return message->topic.size == size && memcmp(message->topic.bytes, topic, size) == 0;
}

static int32_t publish(void *instance, const ringmq_api *api, ringmq_call call, const ringmq_client *client,
                       const ringmq_message *message)
{
    (void)instance, (void)api, (void)call, (void)client;
    if (is_topic(message, "loop")) {
        fputs("the plugin loops\n", stderr);
        while (is_looping)
            ;
    }
    if (is_topic(message, "while"))
        loop_ms(4500);
    if (is_topic(message, "crash"))
        return *nowhere;
    if (is_topic(message, "abort"))
        abort();
    return RINGMQ_ALLOW;
}

const ringmq_plugin_table ringmq_plugin = {
    RINGMQ_PLUGIN_HEAD,
    .publish = publish,
};
