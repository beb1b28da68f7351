//! The bytes of TPM commands and answers (TCG TPM 2.0 Library, Part 1 clause 18, Part 2, Part 3).
//!
//! Everything is big-endian; a `TPM2B` is two bytes of length and so many bytes. An answer is read to its last byte: one that is too short or too
//! long, or says what was not asked for, is refused, and no length in it is believed before it is compared with what is there.

/// No answer is longer: the largest command of this module is a key that is loaded.
pub(super) const MESSAGE_BYTES_MAX: usize = 4096;
/// Tag, size and code (Part 1, 18.2).
pub(super) const HEADER_BYTES: usize = 10;

// TPM_ST (Part 2, 6.9).
const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const ST_HASHCHECK: u16 = 0x8024;

// TPM_RH (Part 2, 7.4).
pub(super) const RH_OWNER: u32 = 0x4000_0001;
const RH_NULL: u32 = 0x4000_0007;
const RS_PW: u32 = 0x4000_0009;

// TPM_ALG_ID (Part 2, 6.3) and TPM_ECC_CURVE (6.4).
const ALG_AES: u16 = 0x0006;
const ALG_SHA256: u16 = 0x000B;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const ECC_NIST_P256: u16 = 0x0003;

// TPMA_OBJECT (Part 2, 8.3).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// The counter's place among those that the owner gives away (TCG Registry of Reserved TPM 2.0 Handles, 2.2.2: 0x01800000 to 0x01BFFFFF).
const COUNTER: u32 = 0x0181_7073;
/// TPMA_NV (Part 2, 13.4): a counter; written and read with its own, empty, authorisation, read by the owner too, and out of reach of the lock-out.
const COUNTER_ATTRIBUTES: u32 = AUTH_WRITE | NT_COUNTER | OWNER_READ | AUTH_READ | NV_NO_DA;
const AUTH_WRITE: u32 = 1 << 2;
const NT_COUNTER: u32 = 1 << 4;
const OWNER_READ: u32 = 1 << 17;
const AUTH_READ: u32 = 1 << 18;
const NV_NO_DA: u32 = 1 << 25;
/// A counter's bytes.
const COUNTER_BYTES: u16 = 8;

/// Born in this TPM, bound to it, and used without locking anybody out.
const BORN_HERE: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA;

/// A coordinate, or half a signature, of P-256.
const P256_BYTES: usize = 32;

/// A command (Part 2, 6.5.2: TPM_CC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    number: u32,
    /// As Part 3 calls it.
    pub(super) name: &'static str,
    /// Whether its answer begins with a handle.
    gives_handle: bool,
}

const fn code(number: u32, name: &'static str, gives_handle: bool) -> Code {
    Code {
        number,
        name,
        gives_handle,
    }
}

pub(super) const CREATE_PRIMARY: Code = code(0x131, "TPM2_CreatePrimary", true);
pub(super) const CREATE: Code = code(0x153, "TPM2_Create", false);
pub(super) const LOAD: Code = code(0x157, "TPM2_Load", true);
pub(super) const SIGN_DIGEST: Code = code(0x15D, "TPM2_Sign", false);
pub(super) const NV_DEFINE_SPACE: Code = code(0x12A, "TPM2_NV_DefineSpace", false);
pub(super) const NV_INCREMENT: Code = code(0x134, "TPM2_NV_Increment", false);
pub(super) const NV_READ: Code = code(0x14E, "TPM2_NV_Read", false);
pub(super) const FLUSH_CONTEXT: Code = code(0x165, "TPM2_FlushContext", false);

/// A command, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) code: Code,
    with_session: bool,
    pub(super) bytes: Vec<u8>,
}

/// Bytes in the making.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A `TPM2B`. What is put into one here is far shorter than its length can say.
    fn sized(self, content: &[u8]) -> Self {
        let mut sized = self.u16(u16::try_from(content.len()).unwrap_or(u16::MAX));
        sized.0.extend(content);
        sized
    }

    fn raw(mut self, content: &[u8]) -> Self {
        self.0.extend(content);
        self
    }
}

fn command(code: Code, handles: &[u32], with_session: bool, parameters: Bytes) -> Command {
    let mut body = handles
        .iter()
        .fold(Bytes::default(), |body, handle| body.u32(*handle));
    if with_session {
        // One authorisation: an empty password (Part 1, 18.6): handle, no nonce, no attributes, no password.
        let session = Bytes::default().u32(RS_PW).sized(&[]).raw(&[0]).sized(&[]).0;
        body = body
            .u32(u32::try_from(session.len()).unwrap_or(u32::MAX))
            .raw(&session);
    }
    let body = body.raw(&parameters.0).0;
    let tag = if with_session { ST_SESSIONS } else { ST_NO_SESSIONS };
    let size = u32::try_from(body.len().saturating_add(HEADER_BYTES)).unwrap_or(u32::MAX);
    let bytes = Bytes::default().u16(tag).u32(size).u32(code.number).raw(&body).0;
    Command {
        code,
        with_session,
        bytes,
    }
}

/// The public area of P-256 keys (TPMT_PUBLIC, Part 2, 12.2.4) up to the point itself.
fn template(attributes: u32, parameters: Bytes) -> Vec<u8> {
    Bytes::default()
        .u16(ALG_ECC)
        .u16(ALG_SHA256)
        .u32(attributes)
        .sized(&[])
        .raw(&parameters.0)
        .0
}

/// The storage key of the owner's hierarchy (TCG TPM v2.0 Provisioning Guidance, 7.5.1: ECC P-256): the same one each time in the same TPM,
/// until its owner's hierarchy is cleared.
fn storage_template() -> Vec<u8> {
    let parameters = Bytes::default()
        .u16(ALG_AES)
        .u16(128)
        .u16(ALG_CFB)
        .u16(ALG_NULL)
        .u16(ECC_NIST_P256)
        .u16(ALG_NULL);
    template(BORN_HERE | RESTRICTED | DECRYPT, parameters)
}

/// A key that signs, by ECDSA with SHA-256, and does nothing else.
fn signing_template() -> Vec<u8> {
    let parameters = Bytes::default()
        .u16(ALG_NULL)
        .u16(ALG_ECDSA)
        .u16(ALG_SHA256)
        .u16(ECC_NIST_P256)
        .u16(ALG_NULL);
    template(BORN_HERE | SIGN, parameters)
}

/// The parameters of creation (Part 3, 12.1 and 24.1): no secret of ours, this template with a point of the TPM's choice, nothing else.
fn creation(template: &[u8]) -> Bytes {
    let sensitive = Bytes::default().sized(&[]).sized(&[]).0;
    let public = Bytes::default().raw(template).sized(&[]).sized(&[]).0;
    // No outside information, and no PCR.
    Bytes::default()
        .sized(&sensitive)
        .sized(&public)
        .sized(&[])
        .u32(0)
}

/// Makes the storage key anew, as it was (Part 3, 24.1).
pub(super) fn create_primary() -> Command {
    command(CREATE_PRIMARY, &[RH_OWNER], true, creation(&storage_template()))
}

/// Makes a signing key below `parent` (Part 3, 12.1).
pub(super) fn create(parent: u32) -> Command {
    command(CREATE, &[parent], true, creation(&signing_template()))
}

/// Loads a key below `parent` (Part 3, 12.2).
pub(super) fn load(parent: u32, wrapped: &WrappedKey) -> Command {
    let parameters = Bytes::default().sized(&wrapped.private).sized(&wrapped.public);
    command(LOAD, &[parent], true, parameters)
}

/// Signs a digest with `key`, by the scheme that the key has (Part 3, 20.2). The digest is not of the TPM's own making, which keys that are not restricted
/// accept without a ticket.
pub(super) fn sign(key: u32, digest: &[u8; 32]) -> Command {
    let parameters = Bytes::default()
        .sized(digest)
        .u16(ALG_NULL)
        .u16(ST_HASHCHECK)
        .u32(RH_NULL)
        .sized(&[]);
    command(SIGN_DIGEST, &[key], true, parameters)
}

/// Forgets what was loaded (Part 3, 28.4).
pub(super) fn flush(handle: u32) -> Command {
    command(FLUSH_CONTEXT, &[handle], false, Bytes::default())
}

/// Makes the counter (Part 3, 31.3). It has no number before it goes up for the first time, and begins then with the highest that any counter of this TPM ever had.
pub(super) fn define_counter() -> Command {
    let public = Bytes::default()
        .u32(COUNTER)
        .u16(ALG_SHA256)
        .u32(COUNTER_ATTRIBUTES)
        .sized(&[])
        .u16(COUNTER_BYTES)
        .0;
    let parameters = Bytes::default().sized(&[]).sized(&public);
    command(NV_DEFINE_SPACE, &[RH_OWNER], true, parameters)
}

/// Has the counter go up by one (Part 3, 31.8).
pub(super) fn increment() -> Command {
    command(NV_INCREMENT, &[COUNTER, COUNTER], true, Bytes::default())
}

/// Reads the counter (Part 3, 31.13).
pub(super) fn read_counter() -> Command {
    let parameters = Bytes::default().u16(COUNTER_BYTES).u16(0);
    command(NV_READ, &[COUNTER, COUNTER], true, parameters)
}

/// What the counter shows.
pub(super) fn counter(parameters: &[u8]) -> Option<u64> {
    let mut reader = Reader::of(parameters);
    let number = u64::from_be_bytes(reader.sized()?.try_into().ok()?);
    reader.end()?;
    Some(number)
}

/// A key as its TPM gives it away: encrypted by the storage key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrappedKey {
    /// The content of the `TPM2B_PUBLIC`.
    pub(super) public: Vec<u8>,
    /// The content of the `TPM2B_PRIVATE`.
    pub(super) private: Vec<u8>,
}

/// Reads to the end of what is there, and no further.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// What an answer's header says: its size, where it can be one.
pub(super) fn size_in_header(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let mut reader = Reader::of(header);
    reader.u16()?;
    let size = usize::try_from(reader.u32()?).ok()?;
    (HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&size).then_some(size)
}

/// An answer to a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// It was done: the handle of what was made, and the parameters.
    Done { handle: u32, parameters: &'a [u8] },
    /// It was not: TPM_RC.
    Refused(u32),
}

/// Reads the answer to `command` (Part 1, 18.9); `None`: it is none.
pub(super) fn answer<'a>(command: &Command, bytes: &'a [u8]) -> Option<Answer<'a>> {
    let mut reader = Reader::of(bytes);
    let tag = reader.u16()?;
    let size = usize::try_from(reader.u32()?).ok()?;
    let refused = reader.u32()?;
    if size != bytes.len() || size > MESSAGE_BYTES_MAX {
        return None;
    }
    if refused != 0 {
        reader.end()?;
        return Some(Answer::Refused(refused));
    }
    let expected = if command.with_session {
        ST_SESSIONS
    } else {
        ST_NO_SESSIONS
    };
    if tag != expected {
        return None;
    }
    let handle = match command.code.gives_handle {
        true => reader.u32()?,
        false => 0,
    };
    if !command.with_session {
        return Some(Answer::Done {
            handle,
            parameters: reader.0,
        });
    }
    let count = usize::try_from(reader.u32()?).ok()?;
    let parameters = reader.take(count)?;
    // The answer to the empty password: no nonce, attributes, no HMAC.
    reader.sized()?;
    reader.u8()?;
    reader.sized()?;
    reader.end()?;
    Some(Answer::Done { handle, parameters })
}

/// The key that was made (Part 3, 12.1.2, table "TPM2_Create Response"), if it is what was asked for.
pub(super) fn created(parameters: &[u8]) -> Option<WrappedKey> {
    let mut reader = Reader::of(parameters);
    let private = reader.sized()?.to_vec();
    let public = reader.sized()?.to_vec();
    // Data, hash and ticket of the creation, which nobody asks for.
    reader.sized()?;
    reader.sized()?;
    ticket(&mut reader)?;
    reader.end()?;
    point(&public)?;
    (!private.is_empty()).then_some(WrappedKey { public, private })
}

/// A ticket (TPMT_TK_CREATION, Part 2, 10.7.3).
fn ticket(reader: &mut Reader<'_>) -> Option<()> {
    reader.u16()?;
    reader.u32()?;
    reader.sized()?;
    Some(())
}

/// The uncompressed point of a public area, which must be a signing key as [`create`] makes it.
pub(super) fn point(public: &[u8]) -> Option<[u8; 2 * P256_BYTES + 1]> {
    let mut reader = Reader::of(public.strip_prefix(signing_template().as_slice())?);
    let x = padded(reader.sized()?)?;
    let y = padded(reader.sized()?)?;
    reader.end()?;
    let mut point = [4; 2 * P256_BYTES + 1];
    point.get_mut(1..=P256_BYTES)?.copy_from_slice(&x);
    point.get_mut(P256_BYTES + 1..)?.copy_from_slice(&y);
    Some(point)
}

/// A number of at most 32 bytes, with as many zeros before it as it lacks: older TPMs leave them out.
fn padded(number: &[u8]) -> Option<[u8; P256_BYTES]> {
    let lacking = P256_BYTES.checked_sub(number.len())?;
    if number.is_empty() {
        return None;
    }
    let mut padded = [0; P256_BYTES];
    padded.get_mut(lacking..)?.copy_from_slice(number);
    Some(padded)
}

/// The signature (TPMT_SIGNATURE, Part 2, 11.3.4) as X.509 and TLS have it: ECDSA-Sig-Value in DER.
pub(super) fn signature(parameters: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::of(parameters);
    if (reader.u16()?, reader.u16()?) != (ALG_ECDSA, ALG_SHA256) {
        return None;
    }
    let numbers = [padded(reader.sized()?)?, padded(reader.sized()?)?];
    reader.end()?;
    let mut content = Vec::with_capacity(72);
    for number in numbers {
        let significant = number.iter().position(|byte| *byte != 0)?;
        let number = number.get(significant..)?;
        // A first bit that is set would make it negative.
        let sign = usize::from(number.first()? & 0x80 != 0);
        content.push(0x02);
        content.push(u8::try_from(number.len() + sign).ok()?);
        content.extend(std::iter::repeat_n(0, sign));
        content.extend(number);
    }
    let mut der = vec![0x30, u8::try_from(content.len()).ok()?];
    der.extend(content);
    Some(der)
}

/// A code of refusal without the number of the handle, session or parameter that it is about (Part 2, 6.6.2), and without the layer that it comes from.
pub(super) fn cause(refused: u32) -> u32 {
    let own = refused & 0xFFF;
    if own & 0x80 != 0 { own & 0xBF } else { own }
}

// TPM_RC (Part 2, 6.6.3), as `cause` gives them.
pub(super) const RC_INITIALIZE: u32 = 0x100;
pub(super) const RC_DISABLED: u32 = 0x120;
pub(super) const RC_HIERARCHY: u32 = 0x085;
pub(super) const RC_AUTH_FAIL: u32 = 0x08E;
pub(super) const RC_BAD_AUTH: u32 = 0x0A2;
pub(super) const RC_HANDLE: u32 = 0x08B;
pub(super) const RC_NV_DEFINED: u32 = 0x14C;
pub(super) const RC_NV_UNINITIALIZED: u32 = 0x14A;
pub(super) const RC_INTEGRITY: u32 = 0x09F;
pub(super) const RC_OBJECT_MEMORY: u32 = 0x902;
pub(super) const RC_YIELDED: u32 = 0x908;
pub(super) const RC_TESTING: u32 = 0x90A;
pub(super) const RC_NV_RATE: u32 = 0x920;
pub(super) const RC_LOCKOUT: u32 = 0x921;
pub(super) const RC_RETRY: u32 = 0x922;
