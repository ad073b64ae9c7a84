//! The C ABI of plugins in Rust: the types and numbers of `ringmq_plugin.h`, which has their documentation.
//!
//! It depends on nothing, so that a plugin in Rust can take it as it is: `ringmq plugin-header --rust` prints it.
#![allow(dead_code, reason = "a plugin uses some of it")]

use core::ffi::c_void;

pub const ABI_MAJOR: u16 = 1;
pub const ABI_MINOR: u16 = 1;
pub const MAGIC: u32 = 0x714D_6752;

pub const ALLOW: i32 = 0;
pub const OK: i32 = 0;
pub const SKIP: i32 = 1;
pub const LATER: i32 = 2;
pub const FAILED: i32 = -1;
pub const STALE: i32 = -2;
pub const BAD_ARGUMENT: i32 = -3;
pub const BAD_TEXT: i32 = -4;
pub const BAD_TOPIC: i32 = -5;
pub const TOO_LARGE: i32 = -6;
pub const NOT_HERE: i32 = -7;
pub const NONE: i32 = -8;
pub const BUSY: i32 = -9;

pub const UNSPECIFIED_ERROR: i32 = 0x80;
pub const IMPLEMENTATION_ERROR: i32 = 0x83;
pub const BAD_USER_NAME_OR_PASSWORD: i32 = 0x86;
pub const NOT_AUTHORIZED: i32 = 0x87;
pub const SERVER_UNAVAILABLE: i32 = 0x88;
pub const SERVER_BUSY: i32 = 0x89;
pub const BANNED: i32 = 0x8A;
pub const TOPIC_NAME_INVALID: i32 = 0x90;
pub const QUOTA_EXCEEDED: i32 = 0x97;
pub const PAYLOAD_FORMAT_INVALID: i32 = 0x99;

pub const EVENT_CONNECTED: u32 = 1;
pub const EVENT_DISCONNECTED: u32 = 2;
pub const EVENT_TAKEN_OVER: u32 = 3;
pub const EVENT_SESSION_ENDED: u32 = 4;

pub const PAYLOAD_FORMAT: u32 = 0x01;
pub const MESSAGE_EXPIRY: u32 = 0x02;
pub const CONTENT_TYPE: u32 = 0x03;
pub const RESPONSE_TOPIC: u32 = 0x08;
pub const CORRELATION_DATA: u32 = 0x09;

pub const LIMIT_SESSION_EXPIRY_S: u32 = 1;
pub const LIMIT_KEEP_ALIVE_S: u32 = 2;
pub const LIMIT_INFLIGHT: u32 = 3;
pub const LIMIT_QUEUE_MESSAGES: u32 = 4;
pub const LIMIT_QUEUE_BYTES: u32 = 5;
pub const LIMIT_SUBSCRIPTIONS: u32 = 6;

pub const LOG_ERROR: u32 = 1;
pub const LOG_WARN: u32 = 2;
pub const LOG_INFO: u32 = 3;
pub const LOG_DEBUG: u32 = 4;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub bytes: *const u8,
    pub size: usize,
}

impl View {
    pub const ABSENT: View = View { bytes: core::ptr::null(), size: 0 };

    /// Good for as long as `bytes` is.
    pub const fn of(bytes: &[u8]) -> View {
        View { bytes: bytes.as_ptr(), size: bytes.len() }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub token: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PluginOption {
    pub name: View,
    pub value: View,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub ip: [u8; 16],
    pub port: u16,
    pub family: u8,
    pub reserved: u8,
}

#[repr(C)]
#[derive(Debug)]
pub struct Setup {
    pub size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub shard: u16,
    pub reserved: u16,
    pub option_count: u32,
    pub options: *const PluginOption,
    pub plugin_name: View,
    pub broker_version: View,
}

#[repr(C)]
#[derive(Debug)]
pub struct Client {
    pub size: u32,
    pub shard: u16,
    pub protocol: u8,
    pub reserved: u8,
    pub client_id: View,
    pub user_name: View,
    pub peer: Address,
    pub listener: Address,
}

#[repr(C)]
#[derive(Debug)]
pub struct Connect {
    pub size: u32,
    pub session_expiry_s: u32,
    pub keep_alive_s: u16,
    pub has_session_expiry: u8,
    pub clean_start: u8,
    pub has_will: u8,
    pub will_qos: u8,
    pub will_retain: u8,
    pub reserved: u8,
    pub password: View,
    pub will_topic: View,
    pub will_payload: View,
}

#[repr(C)]
#[derive(Debug)]
pub struct Subscription {
    pub size: u32,
    pub qos: u8,
    pub reserved: [u8; 3],
    pub filter: View,
}

#[repr(C)]
#[derive(Debug)]
pub struct Message {
    pub size: u32,
    pub qos: u8,
    pub retain: u8,
    pub reserved: u16,
    pub topic: View,
    pub payload: View,
}

#[repr(C)]
#[derive(Debug)]
pub struct Event {
    pub size: u32,
    pub kind: u32,
    pub is_resumed: u8,
    pub reserved: [u8; 7],
    pub why: View,
}

#[repr(C)]
#[derive(Debug)]
pub struct Undelivered {
    pub size: u32,
    pub reserved: u32,
    pub client_id: View,
    pub topic: View,
    pub why: View,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SessionLimit {
    pub limit: u32,
    pub reserved: u32,
    pub value: u64,
}

#[repr(C)]
#[derive(Debug)]
pub struct Api {
    pub size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub log: unsafe extern "C" fn(Call, u32, View) -> i32,
    pub explain: unsafe extern "C" fn(Call, View) -> i32,
    pub user_property: unsafe extern "C" fn(Call, u32, *mut View, *mut View) -> i32,
    pub property_text: unsafe extern "C" fn(Call, u32, *mut View) -> i32,
    pub property_number: unsafe extern "C" fn(Call, u32, *mut u32) -> i32,
    pub set_topic: unsafe extern "C" fn(Call, View) -> i32,
    pub set_payload: unsafe extern "C" fn(Call, View) -> i32,
    pub set_qos: unsafe extern "C" fn(Call, u32) -> i32,
    pub set_retain: unsafe extern "C" fn(Call, u32) -> i32,
    pub set_property_text: unsafe extern "C" fn(Call, u32, View) -> i32,
    pub set_property_number: unsafe extern "C" fn(Call, u32, u32) -> i32,
    pub remove_property: unsafe extern "C" fn(Call, u32) -> i32,
    pub add_user_property: unsafe extern "C" fn(Call, View, View) -> i32,
    pub replace_user_property: unsafe extern "C" fn(Call, View, View) -> i32,
    pub remove_user_property: unsafe extern "C" fn(Call, View) -> i32,
    pub set_limit: unsafe extern "C" fn(Call, u32, u64) -> i32,
    pub question: unsafe extern "C" fn(Call, *mut u64) -> i32,
    pub answer: unsafe extern "C" fn(u64, i32, *const SessionLimit, usize) -> i32,
}

/// All hooks of a table but those that differ are of this form: instance, functions, handle, who, what.
pub type Hook<T> =
    unsafe extern "C-unwind" fn(*mut c_void, *const Api, Call, *const Client, *const T) -> i32;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PluginTable {
    pub magic: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub size: u32,
    pub reserved: u32,
    pub create: Option<
        unsafe extern "C-unwind" fn(*const Api, Call, *const Setup, *mut *mut c_void) -> i32,
    >,
    pub destroy: Option<unsafe extern "C-unwind" fn(*mut c_void)>,
    pub connect: Option<Hook<Connect>>,
    pub authorize_subscribe: Option<Hook<Subscription>>,
    pub authorize_publish: Option<Hook<Message>>,
    pub publish: Option<Hook<Message>>,
    pub deliver: Option<Hook<Message>>,
    pub unsubscribed: Option<
        unsafe extern "C-unwind" fn(*mut c_void, *const Api, Call, *const Client, View) -> i32,
    >,
    pub event: Option<Hook<Event>>,
    pub dropped: Option<
        unsafe extern "C-unwind" fn(*mut c_void, *const Api, Call, *const Undelivered) -> i32,
    >,
    pub tick: Option<unsafe extern "C-unwind" fn(*mut c_void, *const Api, Call) -> i32>,
}
