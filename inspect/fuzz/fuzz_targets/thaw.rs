#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_inspect_fuzz::thaw::run(data));
