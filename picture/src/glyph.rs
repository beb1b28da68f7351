//! Small pictures for the roles of assets, for gates and for marks: strokes in a 16 × 16 square. What each means is said in `marks`.

/// A badge: how well somebody proves who they are.
pub(super) const BADGE: &str =
    "M2 3.5h12v9h-12ZM4 10.5c0-2.4 4-2.4 4 0M6 5.6a1.2 1.2 0 1 0 .01 0M10 7h2.5M10 9.5h2.5";

/// A gate lifted between its posts.
pub(super) const GATE: &str =
    "M2.5 14V2.5M13.5 14V2.5M1 2.5H15M8 2.5V5.5M4.5 5.5H11.5V9.5H4.5ZM1 14H4M12 14H15";
/// An eye glass: the gate looks inside the protocol.
pub(super) const LENS: &str = "M7 2.5A4.5 4.5 0 1 1 6.99 2.5ZM10.3 10.3 14 14M5 7H9";
/// A drop: the process needs it to flow.
pub(super) const DROP: &str = "M8 1.5C11 5.5 12.8 7.6 12.8 10.2A4.8 4.8 0 0 1 3.2 10.2C3.2 7.6 5 5.5 8 1.5Z";
/// A padlock: the gateway ends the client's TLS, and begins its own.
pub(super) const LOCK: &str = "M3.5 7.5H12.5V14H3.5ZM5.5 7.5V5A2.5 2.5 0 0 1 10.5 5V7.5";
/// A way through a tube: what crosses runs in a tunnel between two gateways.
pub(super) const TUNNEL: &str =
    "M1.5 13.5V8A6.5 6.5 0 0 1 14.5 8V13.5M4.5 13.5V8A3.5 3.5 0 0 1 11.5 8V13.5M1 13.5H5M11 13.5H15";
/// An arrow to a wall: the gateway carries messages one way.
pub(super) const ONE_WAY: &str = "M1.5 5.5H8.5M1.5 10.5H8.5M7 3 12 8 7 13M14.5 2.5V13.5";
/// A clock: open only while a grant of remote access lasts.
pub(super) const CLOCK: &str = "M8 1.8A6.2 6.2 0 1 1 7.99 1.8ZM8 4.5V8L10.5 9.5";
/// An open padlock: the last metre is spoken in the plain.
pub(super) const UNLOCKED: &str = "M3.5 7.5H12.5V14H3.5ZM5.5 7.5V4.5A2.5 2.5 0 0 1 10.3 3.6";
/// A house: a site.
pub(super) const SITE: &str = "M2 14V7L8 2 14 7V14ZM6 14V10H10V14";
/// An eye: it is only watched.
pub(super) const EYE: &str = "M1.5 8C4 3.5 12 3.5 14.5 8 12 12.5 4 12.5 1.5 8ZM8 6A2 2 0 1 1 7.99 6Z";
/// A triangle: needs attention.
pub(super) const WARN: &str = "M8 2 14.5 13.5H1.5ZM8 6.2V9.5M8 11.4V11.6";
/// An octagon: is not as it must be.
pub(super) const ALARM: &str = "M5.3 1.5H10.7L14.5 5.3V10.7L10.7 14.5H5.3L1.5 10.7V5.3ZM8 4.8V8.8M8 11V11.2";
/// An open way: passes when the agent is lost.
pub(super) const OPEN: &str = "M2 8H13M9.5 4.5 13 8 9.5 11.5";

/// A shield: safety.
pub(super) const SHIELD: &str =
    "M8 1.5 13.5 3.5V8C13.5 11.3 11 13.6 8 14.5 5 13.6 2.5 11.3 2.5 8V3.5ZM5.5 8 7.3 9.8 10.6 6.3";
/// A screen.
pub(super) const SCREEN: &str = "M1.5 2.5H14.5V11H1.5ZM5.5 14H10.5M8 11V14M4 8.5 6.2 6 8.2 7.6 11.8 4.8";
/// A drum: what is kept.
pub(super) const DRUM: &str = "M2.5 4C2.5 1.4 13.5 1.4 13.5 4V12C13.5 14.6 2.5 14.6 2.5 12ZM2.5 4C2.5 6.6 13.5 6.6 13.5 4M2.5 8C2.5 10.6 13.5 10.6 13.5 8";
/// A laptop.
pub(super) const LAPTOP: &str = "M3 3H13V10.5H3ZM1 13H15M3 10.5 1 13M13 10.5 15 13";
/// Modules in a rack.
pub(super) const RACK: &str = "M1.5 2.5H14.5V13.5H1.5ZM5.8 2.5V13.5M10.2 2.5V13.5M3 5H4.3M7.3 5H8.7M11.7 5H13M3 11H4.3M7.3 11H8.7M11.7 11H13";
/// A box with a flash.
pub(super) const RELAY: &str = "M2.5 1.5H13.5V14.5H2.5ZM5 4.5H11M8.8 6 6.2 9.3H9.6L7.2 12.5";
/// A gauge.
pub(super) const GAUGE: &str = "M8 1.8A6.2 6.2 0 1 1 7.99 1.8ZM8 8 11 5M4.6 10.8H11.4";
/// A motor.
pub(super) const MOTOR: &str =
    "M2 4.5H10.5V12H2ZM10.5 7H14V9.5H10.5M4.5 4.5V12M7.5 4.5V12M3 14H9.5M4 12V14M8.5 12V14";
/// A valve.
pub(super) const VALVE: &str = "M1.5 6V13L14.5 6V13ZM8 9.5V4M5 4C5 2 11 2 11 4Z";
/// A robot's arm.
pub(super) const ARM: &str =
    "M2 14H9M5.5 14V11M5.5 11 4 6 9.5 3M9.5 3 13 6M13 6 12 8.5M13 6 15 7.5M4 5A1 1 0 1 1 3.99 5Z";
/// A box with ports.
pub(super) const NODE: &str =
    "M1.5 5.5H14.5V10.5H1.5ZM4 8H4.6M6.7 8H7.3M9.4 8H10M4 5.5V3M12 5.5V3M4 13V10.5M12 13V10.5";
/// A camera.
pub(super) const CAMERA: &str = "M1.5 4.5H10.5V11.5H1.5ZM10.5 7 14.5 4.8V11.2L10.5 9M4 13.5H8";
/// Two drawers.
pub(super) const SERVER: &str =
    "M2.5 2H13.5V6.5H2.5ZM2.5 9H13.5V13.5H2.5ZM5 4.2H5.6M5 11.2H5.6M9 4.2H11.5M9 11.2H11.5";
/// A cloud.
pub(super) const CLOUD: &str = "M4.5 12.5A3.2 3.2 0 0 1 4.3 6.1 4.2 4.2 0 0 1 12.2 6.6 3 3 0 0 1 12 12.5Z";
/// A chip.
pub(super) const CHIP: &str = "M3.5 3.5H12.5V12.5H3.5ZM6 1.5V3.5M10 1.5V3.5M6 12.5V14.5M10 12.5V14.5M1.5 6H3.5M1.5 10H3.5M12.5 6H14.5M12.5 10H14.5";
