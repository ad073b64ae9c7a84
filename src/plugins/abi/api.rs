//! The functions that a plugin calls: each checks its handle, then its arguments, then copies.

use super::changes::Single;
use super::layout::{
    self, ABI_MAJOR, ABI_MINOR, Api, CONTENT_TYPE, CORRELATION_DATA, Call, MESSAGE_EXPIRY,
    PAYLOAD_FORMAT, RESPONSE_TOPIC, SessionLimit, View,
};
use super::questions;
use super::refused::{self, Refused};
use super::running::{self, Running, Subject};
use crate::codec::{Property, QoS};
use crate::limits::PACKET_SIZE_CEILING;
use crate::plugin::{Reply, SessionLimits};
use crate::topic::{check_name, is_system};

/// The most limits that one answer may carry: more than there are.
const LIMITS_MAX: usize = 64;

/// The most bytes of a text or of correlation data in MQTT.
const TEXT_SIZE_MAX: usize = u16::MAX as usize;

/// The one table of the process.
pub(super) static API: Api = Api {
    size: size_of::<Api>() as u32,
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    log,
    explain,
    user_property,
    property_text,
    property_number,
    set_topic,
    set_payload,
    set_qos,
    set_retain,
    set_property_text,
    set_property_number,
    remove_property,
    add_user_property,
    replace_user_property,
    remove_user_property,
    set_limit,
    question,
    answer: answer_question,
};

unsafe extern "C" fn log(call: Call, level: u32, text: View) -> i32 {
    answer(call, |running| {
        // SAFETY: the header asks for views that can be read until the function returns.
        let text = running::plain(unsafe { bytes(text) }?);
        let plugin = running.plugin;
        match level {
            layout::LOG_ERROR => tracing::error!("plugin '{plugin}': {text}"),
            layout::LOG_WARN => tracing::warn!("plugin '{plugin}': {text}"),
            layout::LOG_INFO => tracing::info!("plugin '{plugin}': {text}"),
            layout::LOG_DEBUG => tracing::debug!("plugin '{plugin}': {text}"),
            _ => return Err(Refused::BadArgument),
        }
        Ok(())
    })
}

unsafe extern "C" fn explain(call: Call, text: View) -> i32 {
    answer(call, |running| {
        // SAFETY: as in `log`.
        running.explain(unsafe { bytes(text) }?);
        Ok(())
    })
}

unsafe extern "C" fn user_property(
    call: Call,
    index: u32,
    name_out: *mut View,
    value_out: *mut View,
) -> i32 {
    answer(call, |running| {
        if name_out.is_null() || value_out.is_null() {
            return Err(Refused::BadArgument);
        }
        let (name, value) = running.user_property(index)?;
        // SAFETY: the header asks for pointers to a view each, and they are not null. Nothing is read from them.
        unsafe {
            name_out.write(View::of(name.as_bytes()));
            value_out.write(View::of(value.as_bytes()));
        }
        Ok(())
    })
}

unsafe extern "C" fn property_text(call: Call, property: u32, out: *mut View) -> i32 {
    answer(call, |running| {
        let mut properties = running.message()?.properties();
        let found: Option<&[u8]> = match property {
            CONTENT_TYPE => properties.find_map(|property| match property {
                Property::ContentType(text) => Some(text.as_bytes()),
                _ => None,
            }),
            RESPONSE_TOPIC => properties.find_map(|property| match property {
                Property::ResponseTopic(topic) => Some(topic.as_bytes()),
                _ => None,
            }),
            CORRELATION_DATA => properties.find_map(|property| match property {
                Property::CorrelationData(data) => Some(data),
                _ => None,
            }),
            _ => return Err(Refused::BadArgument),
        };
        if out.is_null() {
            return Err(Refused::BadArgument);
        }
        let found = View::of(found.ok_or(Refused::None)?);
        // SAFETY: the header asks for a pointer to a view, and it is not null. Nothing is read from it.
        unsafe { out.write(found) };
        Ok(())
    })
}

unsafe extern "C" fn property_number(call: Call, property: u32, out: *mut u32) -> i32 {
    answer(call, |running| {
        let message = running.message()?;
        let found = match property {
            MESSAGE_EXPIRY => message.message_expiry_s,
            PAYLOAD_FORMAT => message.properties().find_map(|property| match property {
                Property::PayloadFormat(is_utf8) => Some(u32::from(is_utf8)),
                _ => None,
            }),
            _ => return Err(Refused::BadArgument),
        };
        if out.is_null() {
            return Err(Refused::BadArgument);
        }
        let found = found.ok_or(Refused::None)?;
        // SAFETY: the header asks for a pointer to a number, and it is not null. Nothing is read from it.
        unsafe { out.write(found) };
        Ok(())
    })
}

unsafe extern "C" fn set_topic(call: Call, topic: View) -> i32 {
    answer(call, |running| {
        let (room, limits) = running.room()?;
        // SAFETY: as in `log`.
        let topic = unsafe { text(topic) }?;
        let is_name = check_name(topic, limits.filter_size_max, limits.filter_levels_max).is_ok();
        if !is_name || is_system(topic) {
            return Err(Refused::BadTopic);
        }
        Ok(running.changes.set_topic(topic, &room)?)
    })
}

unsafe extern "C" fn set_payload(call: Call, payload: View) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        // SAFETY: as in `log`.
        let payload = unsafe { bytes(payload) }?;
        Ok(running.changes.set_payload(payload, &room)?)
    })
}

unsafe extern "C" fn set_qos(call: Call, qos: u32) -> i32 {
    answer(call, |running| {
        let qos = u8::try_from(qos).ok().and_then(QoS::from_bits).ok_or(Refused::BadArgument)?;
        match running.subject {
            Subject::Subscribe { asked } => running.changes.set_qos(qos.min(asked)),
            Subject::Change(..) => running.changes.set_qos(qos),
            _ => return Err(Refused::NotHere),
        }
        Ok(())
    })
}

unsafe extern "C" fn set_retain(call: Call, retain: u32) -> i32 {
    answer(call, |running| {
        running.room()?;
        running.changes.set_retain(flag(retain)?);
        Ok(())
    })
}

unsafe extern "C" fn set_property_text(call: Call, property: u32, value: View) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        let single = match property {
            // SAFETY: as in `log`.
            CONTENT_TYPE => Single::ContentType(Some(unsafe { text(value) }?)),
            RESPONSE_TOPIC => {
                // SAFETY: as in `log`.
                let topic = unsafe { text(value) }?;
                // [MQTT-3.3.2-14]
                check_name(topic, TEXT_SIZE_MAX, usize::MAX).map_err(|_| Refused::BadTopic)?;
                Single::ResponseTopic(Some(topic))
            }
            CORRELATION_DATA => {
                // SAFETY: as in `log`.
                let data = unsafe { bytes(value) }?;
                if data.len() > TEXT_SIZE_MAX {
                    return Err(Refused::TooLarge);
                }
                Single::CorrelationData(Some(data))
            }
            _ => return Err(Refused::BadArgument),
        };
        Ok(running.changes.set_single(single, &room)?)
    })
}

unsafe extern "C" fn set_property_number(call: Call, property: u32, value: u32) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        let single = match property {
            PAYLOAD_FORMAT => Single::PayloadFormat(Some(flag(value)?)),
            MESSAGE_EXPIRY => Single::MessageExpiry(Some(value)),
            _ => return Err(Refused::BadArgument),
        };
        Ok(running.changes.set_single(single, &room)?)
    })
}

unsafe extern "C" fn remove_property(call: Call, property: u32) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        let single = match property {
            PAYLOAD_FORMAT => Single::PayloadFormat(None),
            MESSAGE_EXPIRY => Single::MessageExpiry(None),
            CONTENT_TYPE => Single::ContentType(None),
            RESPONSE_TOPIC => Single::ResponseTopic(None),
            CORRELATION_DATA => Single::CorrelationData(None),
            _ => return Err(Refused::BadArgument),
        };
        Ok(running.changes.set_single(single, &room)?)
    })
}

unsafe extern "C" fn add_user_property(call: Call, name: View, value: View) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        // SAFETY: as in `log`, for both.
        let (name, value) = unsafe { (text(name)?, text(value)?) };
        Ok(running.changes.add_user_property(name, value, &room)?)
    })
}

unsafe extern "C" fn replace_user_property(call: Call, name: View, value: View) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        // SAFETY: as in `log`, for both.
        let (name, value) = unsafe { (text(name)?, text(value)?) };
        Ok(running.changes.replace_user_property(name, value, &room)?)
    })
}

unsafe extern "C" fn remove_user_property(call: Call, name: View) -> i32 {
    answer(call, |running| {
        let (room, _) = running.room()?;
        // SAFETY: as in `log`.
        let name = unsafe { text(name) }?;
        Ok(running.changes.remove_user_property(name, &room)?)
    })
}

unsafe extern "C" fn set_limit(call: Call, limit: u32, value: u64) -> i32 {
    answer(call, |running| {
        let Subject::Connect(..) = running.subject else { return Err(Refused::NotHere) };
        bound(&mut running.changes.session, limit, value)
    })
}

unsafe extern "C" fn question(call: Call, number: *mut u64) -> i32 {
    answer(call, |running| {
        let Subject::Connect(_, question) = running.subject else { return Err(Refused::NotHere) };
        if number.is_null() {
            return Err(Refused::BadArgument);
        }
        let question = question.ok_or(Refused::Busy)?;
        // SAFETY: the header asks for a pointer to a number, and it is not null. Nothing is read from it.
        unsafe { number.write(question) };
        Ok(())
    })
}

/// Of no running call: any thread may answer, and what it hands in is checked and copied here.
unsafe extern "C" fn answer_question(
    number: u64,
    verdict: i32,
    limits: *const SessionLimit,
    limit_count: usize,
) -> i32 {
    let send = || {
        let reply = match refused::reply(verdict).ok_or(Refused::BadArgument)? {
            // SAFETY: the header asks for that many limits, readable until the function returns.
            Ok(()) => Reply::Allow(unsafe { session_limits(limits, limit_count) }?),
            Err(reason) => Reply::Deny(reason),
        };
        questions::answer(number, reply)
    };
    match send() {
        Ok(()) => layout::OK,
        Err(refused) => refused.code(),
    }
}

/// # Safety
/// Limits that are not null must be readable for their count until this returns.
unsafe fn session_limits(
    limits: *const SessionLimit,
    count: usize,
) -> Result<SessionLimits, Refused> {
    let mut session = SessionLimits::default();
    if count == 0 {
        return Ok(session);
    }
    if limits.is_null() || !limits.is_aligned() || count > LIMITS_MAX {
        return Err(Refused::BadArgument);
    }
    // SAFETY: needed to read what C hands in. Sound because it is aligned, not null and not larger than any object may be,
    // and the caller vouches for the rest; numbers have no invalid values.
    for one in unsafe { std::slice::from_raw_parts(limits, count) } {
        bound(&mut session, one.limit, one.value)?;
    }
    Ok(session)
}

fn bound(session: &mut SessionLimits, limit: u32, value: u64) -> Result<(), Refused> {
    let bad = |_| Refused::BadArgument;
    match limit {
        layout::LIMIT_SESSION_EXPIRY_S => {
            session.session_expiry_max_s = Some(value.try_into().map_err(bad)?);
        }
        layout::LIMIT_KEEP_ALIVE_S => {
            session.keep_alive_max_s = Some(value.try_into().map_err(bad)?);
        }
        layout::LIMIT_INFLIGHT if value > 0 => {
            session.inflight_max = Some(value.try_into().map_err(bad)?);
        }
        layout::LIMIT_QUEUE_MESSAGES => {
            session.queue_messages_max = Some(value.try_into().map_err(bad)?);
        }
        layout::LIMIT_QUEUE_BYTES => {
            session.queue_bytes_max = Some(value.try_into().map_err(bad)?);
        }
        layout::LIMIT_SUBSCRIPTIONS => {
            session.subscriptions_max = Some(value.try_into().map_err(bad)?);
        }
        _ => return Err(Refused::BadArgument),
    }
    Ok(())
}

fn answer(call: Call, act: impl FnOnce(&mut Running<'_>) -> Result<(), Refused>) -> i32 {
    match running::with(call, act) {
        Ok(()) => layout::OK,
        Err(refused) => refused.code(),
    }
}

fn flag(number: u32) -> Result<bool, Refused> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refused::BadArgument),
    }
}

/// The bytes that a plugin handed in.
///
/// # Safety
/// A view that is not null must be readable for its size as long as the result is used.
unsafe fn bytes<'a>(view: View) -> Result<&'a [u8], Refused> {
    if view.size == 0 {
        return Ok(&[]);
    }
    if view.bytes.is_null() {
        return Err(Refused::BadArgument);
    }
    if view.size > PACKET_SIZE_CEILING {
        return Err(Refused::TooLarge);
    }
    // SAFETY: needed to read what C hands in. Sound because it is not null, not larger than any object may be, and the
    // caller vouches for the rest; bytes have no alignment and no invalid values.
    Ok(unsafe { std::slice::from_raw_parts(view.bytes, view.size) })
}

/// As `bytes`, for an MQTT string.
///
/// # Safety
/// As for `bytes`.
unsafe fn text<'a>(view: View) -> Result<&'a str, Refused> {
    if view.size > TEXT_SIZE_MAX {
        return Err(Refused::TooLarge);
    }
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { bytes(view) }?;
    // [MQTT-1.5.4-1] [MQTT-1.5.4-2]
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        _ => Err(Refused::BadText),
    }
}
