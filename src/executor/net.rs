//! Connections of a side executor's tasks.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use socket2::SockRef;

use super::uring::io_error;
use super::{AbortOnPanic, Here, here};

/// All addresses of a name. The system's look-up only has a form that blocks, so it gets a thread.
pub(crate) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let look_up = move || {
        let _guard = AbortOnPanic;
        (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
    };
    match here() {
        Here::Uring => glommio::executor().spawn_blocking(look_up).await,
        Here::Epoll(pool) => pool.look_up(look_up).await,
    }
}

/// Connects. Written bytes leave at once, without waiting for more.
pub(crate) async fn connect(
    address: SocketAddr,
    timeout: Duration,
) -> io::Result<(Reader, Writer)> {
    match here() {
        Here::Uring => {
            let stream = glommio::net::TcpStream::connect_timeout(address, timeout).await;
            let stream = stream.map_err(io_error)?;
            let _ = stream.set_nodelay(true);
            let (reader, writer) = split(stream);
            Ok((Reader::Uring(reader), Writer::Uring(writer)))
        }
        Here::Epoll(_) => {
            let connecting = tokio::net::TcpStream::connect(address);
            let stream = tokio::time::timeout(timeout, connecting).await;
            let late = |_| io::Error::from_raw_os_error(libc::ETIMEDOUT);
            let stream = stream.map_err(late)??;
            let _ = stream.set_nodelay(true);
            let stream = Rc::new(stream);
            Ok((Reader::Epoll(stream.clone()), Writer::Epoll(stream)))
        }
    }
}

/// The receiving half of a connection, which is closed when both halves are dropped.
pub(crate) enum Reader {
    Uring(ReadHalf<glommio::net::TcpStream>),
    Epoll(Rc<tokio::net::TcpStream>),
}

impl Reader {
    /// Reads into `buffer`; returns how many bytes. 0: the remote has closed.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Reader::Uring(reader) => reader.read(buffer).await,
            Reader::Epoll(stream) => loop {
                stream.readable().await?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    outcome => return outcome,
                }
            },
        }
    }
}

/// The sending half of a connection.
pub(crate) enum Writer {
    Uring(WriteHalf<glommio::net::TcpStream>),
    Epoll(Rc<tokio::net::TcpStream>),
}

impl Writer {
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Writer::Uring(writer) => writer.write_all(bytes).await,
            Writer::Epoll(stream) => {
                while !bytes.is_empty() {
                    stream.writable().await?;
                    match stream.try_write(bytes) {
                        Ok(0) => return Err(ErrorKind::WriteZero.into()),
                        Ok(count) => bytes = &bytes[count..],
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        }
    }

    /// Tells the remote that no more bytes follow. The receiving half stays open.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        match self {
            Writer::Uring(writer) => writer.close().await,
            Writer::Epoll(stream) => SockRef::from(&**stream).shutdown(Shutdown::Write),
        }
    }
}
