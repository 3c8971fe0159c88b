//! Faults that the simulation plants to prove that it would find them. In a build without the `testing` feature the macro
//! is the constant `false`.

/// Whether a fault is planted: `planted!(ShortSendTailLost)`.
#[cfg(any(test, feature = "testing"))]
#[macro_export]
macro_rules! planted {
    ($fault:ident) => {
        $crate::testing::faults::planted($crate::testing::faults::Fault::$fault)
    };
}

/// Whether a fault is planted: never, in this build.
#[cfg(not(any(test, feature = "testing")))]
#[macro_export]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}
