#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway::testing::fuzz::hub::run(bytes));
