//! What is read and written without the decoder and the encoder of all packets comes to the same.

use ringmq::codec::{
    Ack, ForwardedProperties, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    encode_plain_acked_publish, encode_plain_publish, next_frame, next_plain_ack,
    put_user_property,
};

use crate::{PACKET_SIZE_MAX, VERSIONS, encode};

#[test]
fn a_plain_ack_is_what_the_decoder_takes_it_for() {
    let mut plain_count = 0;
    for first_byte in 0..=u8::MAX {
        for (size, id) in
            [2, 3].into_iter().flat_map(|s| [0, 1, 0x0102, u16::MAX].map(|id| (s, id)))
        {
            let [high, low] = id.to_be_bytes();
            let bytes = [first_byte, size, high, low, 0];
            assert_eq!(next_plain_ack(&bytes[..3]), None);
            let Some((ack_type, packet_id)) = next_plain_ack(&bytes) else { continue };
            plain_count += 1;
            let frame = next_frame(&bytes, PACKET_SIZE_MAX).unwrap().unwrap();
            assert_eq!(frame.size, 4);
            let plain = Ack::new(packet_id, ReasonCode::Success);
            for version in VERSIONS {
                assert_eq!(Ack::decode(&frame, version, ack_type), Ok(plain));
            }
        }
    }
    assert_eq!(plain_count, 4 * 3);
}

#[test]
fn a_plain_publish_is_what_the_encoder_makes_of_it() {
    for (property_count, payload_size) in [(0, 0), (0, 64), (1, 1), (3, 5), (9, 200), (40, 20_000)]
    {
        let mut properties = Vec::new();
        (0..property_count).for_each(|_| put_user_property(&mut properties, "name", "value"));
        let payload = vec![7; payload_size];
        for version in VERSIONS {
            for (qos, retain) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                .into_iter()
                .flat_map(|qos| [(qos, false), (qos, true)])
            {
                let packet_id = PacketId::new(0x1234).unwrap();
                let is_v5 = version == ProtocolVersion::V5;
                let publish = Publish {
                    qos,
                    retain,
                    topic: "a/topic",
                    packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
                    properties: ForwardedProperties::from_raw(if is_v5 {
                        &properties
                    } else {
                        &[]
                    }),
                    payload: &payload,
                    ..Publish::default()
                };
                let topic = publish.topic.as_bytes();
                let mut plain = Vec::new();
                if qos == QoS::AtMostOnce {
                    let message = [topic, &properties, &payload].concat();
                    let (topic_size, properties_size) = (topic.len(), properties.len());
                    let out = &mut plain;
                    encode_plain_publish(
                        version,
                        retain,
                        &message,
                        topic_size,
                        properties_size,
                        out,
                    );
                } else {
                    let asked = (qos, retain, packet_id);
                    let out = &mut plain;
                    encode_plain_acked_publish(version, asked, topic, &properties, &payload, out);
                }
                assert_eq!(
                    plain,
                    encode(&Packet::Publish(publish), version),
                    "{qos:?} {version:?}"
                );
            }
        }
    }
}
