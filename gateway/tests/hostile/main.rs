//! Clients that mean harm, or only too much, against the real gateway on real sockets and both reactors: each limit and each
//! deadline by somebody who is just within it and somebody who is not. Beside all of them is a client that behaves
//! ([`healthy::Healthy`]), which must not suffer; and memory stays within a budget.

mod client;
mod fallback;
mod floods;
mod healthy;
mod limits;
mod memory;
mod node;
mod slow;

/// Runs a scenario on both reactors, as two tests.
macro_rules! scenarios {
    ($($scenario:ident)*) => {
        $(mod $scenario {
            #[test]
            fn on_the_ring() {
                let probed = ringway::reactor::uring::probe().ring;
                if probed.is_err_and(|error| error.leaves_epoll()) {
                    println!("skipped: io_uring is not to be had here");
                    return;
                }
                super::$scenario("uring");
            }

            #[test]
            fn on_epoll() {
                super::$scenario("epoll");
            }
        })*
    };
}

use scenarios;
