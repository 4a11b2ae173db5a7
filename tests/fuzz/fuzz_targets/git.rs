#![no_main]

use groundplan_tests::fuzz::{ignore_closed_pipes, git};

libfuzzer_sys::fuzz_target!(init: ignore_closed_pipes(), |data: &[u8]| git::check(data));
