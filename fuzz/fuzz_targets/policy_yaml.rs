//! Any text: an error that names its reason, or a policy that reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpgate::Policy;

fuzz_target!(|text: &str| {
    match Policy::from_yaml(text) {
        Ok(policy) => {
            let canonical = policy.to_yaml();
            let again = Policy::from_yaml(&canonical)
                .unwrap_or_else(|e| panic!("its own form is refused: {e}\n{canonical}"));
            assert_eq!(policy, again, "{canonical}");
            assert_eq!(policy.hash(), again.hash());
            assert_eq!(canonical, again.to_yaml());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
        }
    }
});
