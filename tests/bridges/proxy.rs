//! A link that can be cut: bytes from a port to another, until somebody closes it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Ends with its process; its threads with their connections.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Held while nobody may pass.
    barrier: Arc<Mutex<()>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let barrier: Arc<Mutex<()>> = Arc::default();
        let (all, free) = (open.clone(), barrier.clone());
        thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                drop(free.lock().unwrap());
                let Ok(far) = TcpStream::connect(target) else { continue };
                for stream in [&near, &far] {
                    let _ = stream.set_nodelay(true);
                    all.lock().unwrap().push(stream.try_clone().unwrap());
                }
                pipe(near.try_clone().unwrap(), far.try_clone().unwrap());
                pipe(far, near);
            }
        });
        Proxy { address, open, barrier }
    }

    /// Cuts all connections where they are; how many ends there were.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        open.iter().filter(|stream| stream.shutdown(Shutdown::Both).is_ok()).count()
    }

    /// New connections wait until what is returned goes.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.barrier.lock().unwrap()
    }
}

fn pipe(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..size]).is_err() {
                break;
            }
        }
        // An end that was not read yet must not be reset by what its reader says.
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// A link whose end is known later.
pub(crate) struct Late {
    pub address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
}

impl Late {
    pub(crate) fn new() -> Late {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let target: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let known = target.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                // A connection that is closed before CONNACK would look like one that was refused.
                let target = loop {
                    if let Some(target) = *known.lock().unwrap() {
                        break target;
                    }
                    thread::sleep(Duration::from_millis(5));
                };
                let Ok(far) = TcpStream::connect(target) else { continue };
                pipe(near.try_clone().unwrap(), far.try_clone().unwrap());
                pipe(far, near);
            }
        });
        Late { address, target }
    }

    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = Some(target);
    }
}
