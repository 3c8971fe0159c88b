//! Whether the kernel can do TLS by itself (kTLS): for `ringway probe`. It is not used, see `docs/decisions/0005-no-kernel-tls.md`.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// The upper layer protocol's name, as `/proc/sys/net/ipv4/tcp_available_ulp` has it.
const TLS: &[u8] = b"tls";

/// Asks for it on a connection over loopback, the only kind of socket that may have it.
///
/// # Errors
/// ENOENT: it is neither built in nor loaded (the kernel loads the module by itself for who has CAP_NET_ADMIN). ENOPROTOOPT: the
/// kernel is older than 4.13.
#[allow(unsafe_code)]
pub fn probe() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    // SAFETY: the option's value is a constant of the length given; the descriptor is open for as long as it is borrowed.
    let answer = unsafe {
        libc::setsockopt(
            near.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_ULP,
            TLS.as_ptr().cast(),
            TLS.len() as libc::socklen_t,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_the_kernel_lists() {
        let listed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
        let is_listed =
            listed.is_ok_and(|names| names.split_whitespace().any(|name| name == "tls"));
        match probe() {
            // Asking may have loaded the module.
            Ok(()) => {}
            Err(error) => {
                assert!(!is_listed, "{error}");
                let errno = error.raw_os_error();
                assert!(
                    [Some(libc::ENOENT), Some(libc::ENOPROTOOPT)].contains(&errno),
                    "{error}"
                );
            }
        }
    }
}
