//! Runs a test that needs an executor on each backend, without io_uring where the kernel refuses it.

use glommio::Placement;

use super::{Here, epoll, uring};
use crate::system::child::bounded;
use crate::system::io::Io;
use crate::system::io::tests::has_io_uring;

pub(crate) fn for_each_io(mut check: impl FnMut(Io)) {
    if has_io_uring() {
        check(Io::Uring);
    }
    check(Io::Epoll);
}

/// Runs `work` and its tasks on an executor on this thread.
pub(crate) fn run<T>(io: Io, work: impl Future<Output = T>) -> T {
    bounded(|| match io {
        Io::Uring => {
            let executor = uring::builder(Placement::Unbound).io_memory(64 << 10).ring_depth(32);
            let executor = executor.make().expect("an executor");
            let _entered = Here::Uring.enter();
            executor.run(work)
        }
        Io::Epoll => epoll::run(epoll::runtime("test").expect("a runtime"), work),
    })
}
