//! Packets from and to bytes: rumqttc's codec, with the checks that it lacks.
//!
//! In: a read buffer. Out: packets, or a [`ProtocolError`]. Adds to rumqttc 0.25: a check of the fixed header's reserved
//! bits (`[MQTT-2.2.2-2]`), a check of the protocol level before the rest of a CONNECT is parsed (that of version 5 has
//! another layout), and an encoder of PUBLISH that borrows.

use bytes::{BufMut, BytesMut};
use rumqttc::mqttbytes::{self, Error, QoS, v4::Packet};

use super::filter::Malformed;

/// Input from a client that MQTT 3.1.1, or this broker, does not allow. Always ends the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("a packet of {size} bytes, above the limit of {max}")]
    TooLarge { size: usize, max: usize },
    #[error("a malformed packet")]
    Malformed(#[source] Error),
    #[error("reserved bits of the fixed header are set: {0:#04x}")]
    ReservedBits(u8),
    #[error("protocol {name:?} level {level}, not MQTT 3.1.1")]
    Version { name: String, level: u8 },
    #[error("an unexpected {0} packet")]
    Unexpected(&'static str),
    #[error("a publish with QoS 2, which this broker does not support")]
    ExactlyOnce,
    #[error("topic or filter {text:?}")]
    Topic {
        text: String,
        #[source]
        source: Malformed,
    },
    #[error("packet id 0")]
    PacketIdZero,
    #[error("an UNSUBSCRIBE without filters")]
    NoFilters,
}

/// Takes the next packet off the buffer, if it is complete.
///
/// `max` limits the remaining length; a packet that announces more is an error before its content arrives.
pub(crate) fn next(buffer: &mut BytesMut, max: usize) -> Result<Option<Packet>, ProtocolError> {
    let malformed = |error| match error {
        Error::PayloadSizeLimitExceeded(size) => ProtocolError::TooLarge { size, max },
        error => ProtocolError::Malformed(error),
    };
    // Other protocols differ in the first byte already: refuse them without waiting for a whole packet.
    let Some(&first) = buffer.first() else { return Ok(None) };
    // Not 0 if a flag is wrong: PUBLISH (3) has flags of its own; PUBREL, SUBSCRIBE and UNSUBSCRIBE need 0010, all others 0000.
    let reserved = match first >> 4 {
        3 => 0,
        6 | 8 | 10 => first & 0x0f ^ 0b0010,
        _ => first & 0x0f,
    };
    if reserved != 0 {
        return Err(ProtocolError::ReservedBits(first));
    }
    // Complete or not, before rumqttc's reader takes anything off the buffer.
    match mqttbytes::check(buffer.iter(), max) {
        Ok(_) => {}
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(error) => return Err(malformed(error)),
    }
    if first >> 4 == 1 {
        check_version(buffer)?;
    }
    Packet::read(buffer, max).map(Some).map_err(malformed)
}

/// Checks the protocol name and level of a complete CONNECT.
fn check_version(frame: &[u8]) -> Result<(), ProtocolError> {
    let length_bytes = frame[1..].iter().take_while(|byte| *byte & 0x80 != 0).count() + 1;
    let content = frame.get(1 + length_bytes..).unwrap_or_default();
    let Some((length, content)) = content.split_first_chunk() else {
        return Err(ProtocolError::Malformed(Error::MalformedPacket));
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let (Some(name), Some(&level)) = (content.get(..length), content.get(length)) else {
        return Err(ProtocolError::Malformed(Error::MalformedPacket));
    };
    if (name, level) != (b"MQTT", 4) {
        let name = String::from_utf8_lossy(&name[..name.len().min(16)]).into_owned();
        return Err(ProtocolError::Version { name, level });
    }
    Ok(())
}

/// The flags of a PUBLISH.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags {
    pub(crate) dup: bool,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// Encodes a PUBLISH. Its length was checked when it was received; only the packet id can have been added since.
pub(crate) fn put_publish(out: &mut BytesMut, flags: Flags, topic: &str, pkid: u16, payload: &[u8]) {
    let with_id = flags.qos != QoS::AtMostOnce;
    let length = 2 + topic.len() + if with_id { 2 } else { 0 } + payload.len();
    out.reserve(length + 5);
    out.put_u8(0x30 | u8::from(flags.dup) << 3 | (flags.qos as u8) << 1 | u8::from(flags.retain));
    put_length(out, length);
    out.put_u16(topic.len() as u16);
    out.put_slice(topic.as_bytes());
    if with_id {
        out.put_u16(pkid);
    }
    out.put_slice(payload);
}

/// Encodes the remaining length of a fixed header (section 2.2.3).
pub(crate) fn put_length(out: &mut BytesMut, mut length: usize) {
    while length > 0x7f {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::v4::Publish;

    #[test]
    fn publishes_are_encoded_as_rumqttc_reads_them() {
        for length in [0, 1, 100, 121, 122, 123, 16_373, 16_380, 2_097_150, 3_000_000] {
            for (qos, pkid) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 513)] {
                let mut expected = Publish::new("a/é", qos, vec![7; length]);
                (expected.pkid, expected.dup, expected.retain) = (pkid, length % 2 == 1, length % 3 == 1);
                let mut out = BytesMut::new();
                let flags = Flags { dup: expected.dup, qos, retain: expected.retain };
                put_publish(&mut out, flags, &expected.topic, pkid, &expected.payload);
                assert_eq!(next(&mut out, usize::MAX).unwrap(), Some(Packet::Publish(expected)));
                assert!(out.is_empty());
            }
        }
    }

    #[test]
    fn refuses_what_the_codec_lets_through() {
        let error = |bytes: &[u8]| next(&mut BytesMut::from(bytes), 100).map(|p| p.is_some());
        assert!(matches!(error(&[0x10, 0x80]), Ok(false)), "not all of the length is there");
        assert!(matches!(error(b"\x10\x07\x00\x04MQTT\x05"), Err(ProtocolError::Version { level: 5, .. })));
        assert!(matches!(error(b"\x10\x09\x00\x06MQIsdp\x03"), Err(ProtocolError::Version { level: 3, .. })));
        assert!(matches!(error(b"\x10\x02\x00\x09"), Err(ProtocolError::Malformed(_))));
        assert!(matches!(error(b"\x12\x07\x00\x04MQTT\x04"), Err(ProtocolError::ReservedBits(0x12))));
        assert!(matches!(error(b"\x80\x06\x00\x01\x00\x01a\x00"), Err(ProtocolError::ReservedBits(0x80))));
        assert!(matches!(error(b"GET / HTTP/1.1\r\n"), Err(ProtocolError::ReservedBits(b'G'))));
        assert!(matches!(error(b"\x30\xff\x7f"), Err(ProtocolError::TooLarge { size: 16_383, max: 100 })));
    }
}
