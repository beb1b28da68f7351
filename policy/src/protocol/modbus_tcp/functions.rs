//! The Modbus functions that a document can name, and the groups of them (MODBUS Application Protocol V1.1b3, section 6).
//!
//! One table for the validator (is this a function, may it have addresses, values, sub-functions?) and for
//! the inspector (which code is that?). Reserved and user-defined codes are written `function-<n>`; what
//! is inside them no standard says, so that only unit and code can be limited.

/// A public function as a plant document may name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModbusFunction {
    /// Standard name in kebab case.
    pub name: &'static str,
    /// Function code, 1–127.
    pub code: u8,
    /// The sub-function that the name fixes (encapsulated interface transport: the MEI type).
    pub sub_function: Option<u16>,
    /// It reads data addresses, which `addresses` limits (`read_addresses` if it also writes).
    pub reads: bool,
    /// It writes data addresses, which `addresses` limits.
    pub writes: bool,
    /// It writes values that `values` can limit: 0 and 1 for coils, 0–65535 for registers.
    pub values: bool,
    /// It has sub-functions that `sub_functions` can limit.
    pub sub_functions: bool,
    /// It addresses files, not data: `addresses` limits the file numbers.
    pub files: bool,
}

const fn function(name: &'static str, code: u8, access: &str) -> ModbusFunction {
    let (mut reads, mut writes, mut values, mut subs, mut files) = (false, false, false, false, false);
    let bytes = access.as_bytes();
    let mut rest: &[u8] = bytes;
    while let [letter, tail @ ..] = rest {
        match *letter {
            b'r' => reads = true,
            b'w' => writes = true,
            b'v' => values = true,
            b's' => subs = true,
            _ => files = true,
        }
        rest = tail;
    }
    ModbusFunction {
        name,
        code,
        sub_function: None,
        reads,
        writes,
        values,
        sub_functions: subs,
        files,
    }
}

const fn encapsulated(name: &'static str, mei_type: u16) -> ModbusFunction {
    ModbusFunction {
        sub_function: Some(mei_type),
        ..function(name, 43, "")
    }
}

/// Every public function, by code. r: reads, w: writes, v: values, s: sub-functions, f: files.
pub const MODBUS_FUNCTIONS: &[ModbusFunction] = &[
    function("read-coils", 1, "r"),
    function("read-discrete-inputs", 2, "r"),
    function("read-holding-registers", 3, "r"),
    function("read-input-registers", 4, "r"),
    function("write-single-coil", 5, "wv"),
    function("write-single-register", 6, "wv"),
    function("read-exception-status", 7, ""),
    function("diagnostics", 8, "s"),
    function("get-comm-event-counter", 11, ""),
    function("get-comm-event-log", 12, ""),
    function("write-multiple-coils", 15, "wv"),
    function("write-multiple-registers", 16, "wv"),
    function("report-server-id", 17, ""),
    function("read-file-record", 20, "rf"),
    function("write-file-record", 21, "wvf"),
    function("mask-write-register", 22, "wv"),
    function("read-write-multiple-registers", 23, "rwv"),
    function("read-fifo-queue", 24, "r"),
    encapsulated("canopen-general-reference", 13),
    encapsulated("read-device-identification", 14),
];

/// One member of a group: a function, limited to some sub-functions where not all of them belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMember {
    /// Function code.
    pub code: u8,
    /// Sub-functions that belong to the group, both ends included; empty: the function has none, or all.
    pub sub_functions: &'static [(u16, u16)],
}

const fn member(code: u8, sub_functions: &'static [(u16, u16)]) -> GroupMember {
    GroupMember { code, sub_functions }
}

/// Changes nothing in the device: data, files and FIFO read, counters, identification. Of the diagnostics
/// only the echo (0), the register (2) and the counters (11–18).
pub const READ_ONLY: &[GroupMember] = &[
    member(1, &[]),
    member(2, &[]),
    member(3, &[]),
    member(4, &[]),
    member(7, &[]),
    member(8, &[(0, 0), (2, 2), (11, 18)]),
    member(11, &[]),
    member(12, &[]),
    member(17, &[]),
    member(20, &[]),
    member(24, &[]),
    member(43, &[(14, 14)]),
];

/// What a group adds to [`READ_ONLY`] in `read-write`: the process data is written.
pub const WRITING: &[GroupMember] = &[
    member(5, &[]),
    member(6, &[]),
    member(15, &[]),
    member(16, &[]),
    member(22, &[]),
    member(23, &[]),
];

/// What `programming` adds to `read-write`: the device itself is changed. All diagnostics, file records,
/// CANopen objects, the user-defined codes (65–72, 100–110) and 90, by which Schneider's tools program.
pub const ENGINEERING: &[GroupMember] = &[
    member(8, &[]),
    member(21, &[]),
    member(43, &[]),
    member(65, &[]),
    member(66, &[]),
    member(67, &[]),
    member(68, &[]),
    member(69, &[]),
    member(70, &[]),
    member(71, &[]),
    member(72, &[]),
    member(90, &[]),
    member(100, &[]),
    member(101, &[]),
    member(102, &[]),
    member(103, &[]),
    member(104, &[]),
    member(105, &[]),
    member(106, &[]),
    member(107, &[]),
    member(108, &[]),
    member(109, &[]),
    member(110, &[]),
];

/// A built-in group by name (`read-only`, `read-write`, `programming`), as the lists that make it up.
///
/// A group is written where a function's name may stand, with the same limits: `addresses` then limits
/// what is written and read, `values` what is written; a limit that a member has no use for does not bind it.
pub fn modbus_group(name: &str) -> Option<&'static [&'static [GroupMember]]> {
    match name {
        "read-only" => Some(&[READ_ONLY]),
        "read-write" => Some(&[READ_ONLY, WRITING]),
        "programming" => Some(&[READ_ONLY, WRITING, ENGINEERING]),
        _ => None,
    }
}

/// The public function of that name.
pub fn modbus_function(name: &str) -> Option<&'static ModbusFunction> {
    MODBUS_FUNCTIONS.iter().find(|function| function.name == name)
}

/// The code that `function-<n>` writes: 1–127, canonical decimal, and not the code of a public function,
/// which has to be called by its name.
pub fn modbus_function_number(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("function-")?;
    let code: u8 = digits.parse().ok()?;
    let canonical = code.to_string() == digits;
    let public = MODBUS_FUNCTIONS.iter().any(|function| function.code == code);
    (canonical && (1..=127).contains(&code) && !public).then_some(code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn names_and_codes_are_unique() {
        for (at, function) in MODBUS_FUNCTIONS.iter().enumerate() {
            for other in &MODBUS_FUNCTIONS[at + 1..] {
                assert_ne!(function.name, other.name);
                assert_ne!(
                    (function.code, function.sub_function),
                    (other.code, other.sub_function)
                );
            }
        }
    }

    #[test]
    fn the_read_only_group_names_no_function_that_writes() {
        for member in READ_ONLY {
            let writes = MODBUS_FUNCTIONS
                .iter()
                .any(|function| function.code == member.code && function.writes);
            assert!(!writes, "function {} writes", member.code);
        }
    }

    #[test]
    fn a_number_stands_only_for_a_code_without_a_name() {
        assert_eq!(modbus_function_number("function-90"), Some(90));
        for refused in [
            "function-3",
            "function-0",
            "function-128",
            "function-090",
            "function-+90",
            "function-",
            "90",
        ] {
            assert_eq!(modbus_function_number(refused), None, "{refused}");
        }
    }
}
