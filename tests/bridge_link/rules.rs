//! What a broker makes of clients that are bridges.

use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling, Subscribe,
    SubscribeFilters, SubscriptionOptions, next_frame,
};
use ringmq::limits::Limits;

use super::broker::Broker;

#[test]
fn a_3_x_bridge_gets_the_retain_flag_and_not_its_own_messages() {
    for (bridge_bit, expected) in
        [(true, &[("other", true)][..]), (false, &[("own", false), ("other", false)])]
    {
        let mut broker = Broker::new(Limits::default());
        let other = broker.connect("other");
        broker.subscribe(other, "nothing", QoS::AtMostOnce);
        let pipe = broker.open_pipe();
        let mut bytes = Vec::new();
        let version = ProtocolVersion::V311;
        Connect { bridge_bit, ..Connect::new(version, "bridge") }.encode(&mut bytes);
        let options = SubscriptionOptions {
            retain_handling: RetainHandling::SendAtSubscribe,
            ..SubscriptionOptions::default()
        };
        let list = [("#", options)];
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        };
        subscribe.encode(version, &mut bytes);
        let publish =
            |topic| Packet::Publish(Publish { retain: true, topic, ..Publish::default() });
        publish("own").encode(version, &mut bytes);
        broker.receive(pipe, &bytes);
        broker.turn();
        let second = broker.open_pipe();
        let mut bytes = Vec::new();
        Connect::new(version, "client").encode(&mut bytes);
        publish("other").encode(version, &mut bytes);
        broker.receive(second, &bytes);
        broker.turn();
        let bytes: Vec<u8> = broker.sent(pipe).drain(..).collect();
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some(frame) = next_frame(rest, usize::MAX).unwrap() {
            rest = &rest[frame.size..];
            if let Packet::Publish(publish) = Packet::decode(&frame, version).unwrap() {
                seen.push((publish.topic.to_owned(), publish.retain));
            }
        }
        let expected: Vec<_> = expected.iter().map(|(t, r)| (t.to_string(), *r)).collect();
        assert_eq!(seen, expected, "bridge bit {bridge_bit}");
    }
}
