//! A plugin in Rust against the C ABI: adds a user property with the size of the payload, and stamps topics below `loud/`.
//!
//! options: `name` is the property's name (`size` without it); `panic = "TOPIC"` panics there, to show that it is contained;
//! `users = "NAME NAME"` lets only these users connect, which a thread of its own finds out (`door.rs`).

mod door;

// In a project of its own: `ringmq plugin-header --rust > src/ringmq_plugin.rs`, and `mod ringmq_plugin;`.
#[path = "../../../../src/plugins/abi/layout.rs"]
mod ringmq_plugin;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use door::Door;
use ringmq_plugin::{
    ABI_MAJOR, ABI_MINOR, ALLOW, Api, BAD_TEXT, BUSY, Call, Client, Connect, FAILED, LATER, MAGIC, Message, OK,
    PluginTable, SERVER_BUSY, Setup, View,
};

struct Instance {
    name: String,
    panic_topic: Option<String>,
    door: Option<Door>,
}

/// What every library exports.
// SAFETY: needed to be found by name. The name is the one that RingMQ looks for, and nothing else has it.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is given")]
pub static ringmq_plugin: PluginTable = PluginTable {
    create: Some(create),
    destroy: Some(destroy),
    connect: Some(connect),
    publish: Some(publish),
    ..EMPTY
};

const EMPTY: PluginTable = PluginTable {
    magic: MAGIC,
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    size: size_of::<PluginTable>() as u32,
    reserved: 0,
    create: None,
    destroy: None,
    connect: None,
    authorize_subscribe: None,
    authorize_publish: None,
    publish: None,
    deliver: None,
    unsubscribed: None,
    event: None,
    dropped: None,
    tick: None,
};

unsafe extern "C-unwind" fn create(
    api: *const Api,
    call: Call,
    setup: *const Setup,
    instance: *mut *mut c_void,
) -> i32 {
    contain(|| {
        // SAFETY: RingMQ hands in pointers that are good until this function returns.
        let (api, setup) = unsafe { (&*api, &*setup) };
        let options = if setup.option_count == 0 {
            &[]
        } else {
            // SAFETY: there are that many options at this place.
            unsafe { slice::from_raw_parts(setup.options, setup.option_count as usize) }
        };
        let mut made = Instance { name: "size".to_owned(), panic_topic: None, door: None };
        for option in options {
            // SAFETY: both are views that are good until this function returns; they are copied.
            let (name, value) = unsafe { (text(option.name)?, text(option.value)?) };
            match name {
                "name" => made.name = value.to_owned(),
                "panic" => made.panic_topic = Some(value.to_owned()),
                // A broker that is older than this header has no questions.
                "users" if (api.size as usize) < size_of::<Api>() => return Err(FAILED),
                "users" => made.door = Some(Door::open(value, api.answer)),
                _ => {
                    let why = format!("options: '{name}' is not one of name, panic, users");
                    // SAFETY: the handle is that of this call, the view is good for its length.
                    unsafe { (api.explain)(call, View::of(why.as_bytes())) };
                    return Err(FAILED);
                }
            }
        }
        // SAFETY: the place is RingMQ's to be filled in; the box comes back in every call until `destroy`.
        unsafe { *instance = Box::into_raw(Box::new(made)).cast() };
        Ok(OK)
    })
}

unsafe extern "C-unwind" fn destroy(instance: *mut c_void) {
    // SAFETY: it is what `create` made, and this is the last call with it.
    drop(unsafe { Box::from_raw(instance.cast::<Instance>()) });
}

unsafe extern "C-unwind" fn connect(
    instance: *mut c_void,
    api: *const Api,
    call: Call,
    client: *const Client,
    _connect: *const Connect,
) -> i32 {
    contain(|| {
        // SAFETY: as in `publish`.
        let (instance, api, client) = unsafe { (&mut *instance.cast::<Instance>(), &*api, &*client) };
        let Some(door) = &instance.door else { return Ok(ALLOW) };
        let mut question = 0;
        // SAFETY: the handle is that of this call, and the number may be written to.
        match unsafe { (api.question)(call, &mut question) } {
            OK => {}
            BUSY => return Ok(SERVER_BUSY),
            code => return Err(code),
        }
        // SAFETY: a view that is good until this returns; the door copies it.
        door.knock(question, unsafe { text(client.user_name)? });
        Ok(LATER)
    })
}

unsafe extern "C-unwind" fn publish(
    instance: *mut c_void,
    api: *const Api,
    call: Call,
    _client: *const Client,
    message: *const Message,
) -> i32 {
    contain(|| {
        // SAFETY: the instance is what `create` made, of this thread alone; the others are good until this returns.
        let (instance, api, message) = unsafe { (&mut *instance.cast::<Instance>(), &*api, &*message) };
        // SAFETY: a view that is good until this returns.
        let topic = unsafe { text(message.topic)? };
        assert!(instance.panic_topic.as_deref() != Some(topic), "this topic makes it panic");
        let size = message.payload.size.to_string();
        let (name, size) = (View::of(instance.name.as_bytes()), View::of(size.as_bytes()));
        // SAFETY: the handle is that of this call; views are copied before the function returns.
        check(unsafe { (api.add_user_property)(call, name, size) })?;
        if let Some(rest) = topic.strip_prefix("loud/") {
            let stamped = format!("stamped/{rest}");
            // SAFETY: as above.
            check(unsafe { (api.set_topic)(call, View::of(stamped.as_bytes())) })?;
        }
        Ok(ALLOW)
    })
}

/// No panic may leave a hook: it becomes a failure, which RingMQ counts and handles as it is configured.
fn contain(hook: impl FnOnce() -> Result<i32, i32>) -> i32 {
    match catch_unwind(AssertUnwindSafe(hook)) {
        Ok(Ok(code) | Err(code)) => code,
        Err(_) => FAILED,
    }
}

fn check(code: i32) -> Result<(), i32> {
    if code == OK { Ok(()) } else { Err(code) }
}

/// # Safety
/// The view must be good as long as the result is used.
unsafe fn text<'a>(view: View) -> Result<&'a str, i32> {
    if view.size == 0 {
        return Ok("");
    }
    // SAFETY: the caller vouches for the view.
    let bytes = unsafe { slice::from_raw_parts(view.bytes, view.size) };
    std::str::from_utf8(bytes).map_err(|_| BAD_TEXT)
}
