//! The style sheet, light and dark by the reader's own preference.
//!
//! As in a control room (ISA-101): grey, blue and black for all that is as it should be; red and amber for what is not, and for
//! nothing else. Colours are never the only sign: kinds are written in the rooms, states have words, shapes or dashes.

use std::fmt::Write as _;

/// Class, light ink, light ground, dark ink, dark ground.
const KINDS: [(&str, &str, &str, &str, &str); 10] = [
    ("k-external", "#667085", "#f0f2f5", "#98a2b3", "#1c222b"),
    ("k-enterprise", "#2563ae", "#eaf2fb", "#7db4f0", "#16253a"),
    ("k-dmz", "#4a5aa0", "#eef0fa", "#a3b2f0", "#1c2340"),
    ("k-remote", "#5a6a94", "#eff1f7", "#aab6d8", "#20263a"),
    ("k-operations", "#1d6a96", "#e7f2f8", "#6fbbe4", "#122c3c"),
    ("k-wireless", "#3d7fb0", "#e9f3fa", "#86c2ec", "#142d40"),
    ("k-transient", "#5d6b7a", "#f1f3f5", "#a9b5c2", "#20272f"),
    ("k-control", "#17498a", "#e8eff8", "#8ab0ea", "#14233c"),
    ("k-safety", "#10243f", "#e6eaf0", "#c3d3ea", "#1a2740"),
    ("k-site", "#3b4f6b", "#f0f4f9", "#a4bad8", "#182230"),
];

/// Light and dark: what needs attention.
const WARN: [&str; 2] = ["#9a5b00", "#f0b35c"];
/// The same for what is an error.
const ALARM: [&str; 2] = ["#b42318", "#f58d80"];

/// The whole style sheet.
pub(super) fn style() -> String {
    let mut css = String::from(
        "text{font-family:\"Helvetica Neue\",Helvetica,Arial,\"Liberation Sans\",\"DejaVu Sans\",sans-serif}\n\
         .b{font-weight:700}\n\
         .m{font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans Mono\",monospace}\n\
         .glyph,.mark,.gate{fill:none;stroke-width:1.4;stroke-linecap:round;stroke-linejoin:round}\n\
         .mark{stroke-width:1.7}\n\
         .frame{stroke-width:1.6}\n\
         .k-safety .frame{stroke-width:2.8}\n\
         .observe .frame,.dashed{stroke-dasharray:7 5}\n\
         .card-frame{stroke-width:1.3}\n\
         .wire{fill:none;stroke-width:1.7;stroke-linejoin:round}\n\
         .wire.must{stroke-width:3}\n\
         .wire.tube{stroke-width:5}\n\
         .wire.must.tube{stroke-width:7}\n\
         .bore{fill:none;stroke-width:2;stroke-linejoin:round}\n\
         .band{stroke:none}\n\
         .band-title{letter-spacing:2px}\n\
         .way:hover .wire{stroke-width:4.5}\n\
         .way:hover .wire.tube{stroke-width:7.5}\n",
    );
    scheme(&mut css, false);
    css.push_str("@media (prefers-color-scheme:dark){\n");
    scheme(&mut css, true);
    css.push_str("}\n");
    css
}

fn scheme(css: &mut String, dark: bool) {
    let pick = |light: &'static str, night: &'static str| if dark { night } else { light };
    let rules = [
        (".page", "fill", pick("#ffffff", "#0f1318")),
        (".band", "fill", pick("#f6f7f9", "#151a21")),
        (".ink", "fill", pick("#18212d", "#e8edf3")),
        (".muted", "fill", pick("#586474", "#9aa7b8")),
        (".band-title", "fill", pick("#8490a0", "#66748a")),
        (".rule", "stroke", pick("#d5dae1", "#2b333e")),
        (".chip", "fill", pick("#ffffff", "#10151b")),
        (".chip", "stroke", pick("#d9dee5", "#333d4a")),
        (".glyph", "stroke", pick("#3b4756", "#c2ccd8")),
        (".tag", "fill", pick("#eef1f5", "#252d38")),
        (".card-frame", "fill", pick("#ffffff", "#171d25")),
        (".mark", "stroke", pick("#586474", "#9aa7b8")),
        (".badge", "fill", pick("#ffffff", "#10151b")),
        (".bar-ground", "fill", pick("#e7eaef", "#2a323d")),
        (".on-lintel", "fill", pick("#ffffff", "#0f1318")),
        (".gate", "stroke", pick("#ffffff", "#0f1318")),
        (".bore", "stroke", pick("#ffffff", "#0f1318")),
    ];
    for (selector, property, value) in rules {
        let _ = writeln!(css, "{selector}{{{property}:{value}}}");
    }
    for (class, light_ink, light_ground, dark_ink, dark_ground) in KINDS {
        let (ink, ground) = if dark {
            (dark_ink, dark_ground)
        } else {
            (light_ink, light_ground)
        };
        let _ = writeln!(
            css,
            ".{class} .frame{{fill:{ground};stroke:{ink}}}.{class} .tint,.{class} .bar,.{class} .lintel,\
             .{class} .head{{fill:{ink}}}.{class} .wire,.{class} .card-frame,.{class} .critical{{stroke:{ink}}}"
        );
    }
    // Last, so that it goes before what a kind says.
    let ink = pick(WARN[0], WARN[1]);
    let _ = writeln!(
        css,
        ".warn-line,.observe .frame{{stroke:{ink}}}.warn-text,.lintel.warn-fill{{fill:{ink}}}"
    );
    let ink = pick(ALARM[0], ALARM[1]);
    let _ = writeln!(css, ".alarm-line{{stroke:{ink}}}.alarm-text{{fill:{ink}}}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Hue in degrees and saturation from 0 to 1.
    fn hue(colour: &str) -> (f64, f64) {
        let part = |at: usize| f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        let (r, g, b) = (part(1), part(3), part(5));
        let (low, high) = (r.min(g).min(b), r.max(g).max(b));
        let spread = high - low;
        if spread == 0.0 {
            return (0.0, 0.0);
        }
        let sector = if high == r {
            ((g - b) / spread).rem_euclid(6.0)
        } else if high == g {
            (b - r) / spread + 2.0
        } else {
            (r - g) / spread + 4.0
        };
        (60.0 * sector, spread / high)
    }

    #[test]
    fn red_and_amber_are_only_for_what_is_not_as_it_should_be_and_all_else_is_grey_or_blue() {
        let (css, mut abnormal) = (style(), 0);
        for rule in css.split('}').filter(|rule| rule.contains('#')) {
            let (selector, properties) = rule.rsplit_once('{').unwrap();
            for colour in properties
                .split('#')
                .skip(1)
                .map(|rest| format!("#{}", &rest[..6]))
            {
                let (hue, saturation) = hue(&colour);
                if ["warn", "alarm", "observe"]
                    .iter()
                    .any(|word| selector.contains(word))
                {
                    assert!(
                        hue <= 50.0 && saturation > 0.05,
                        "{selector}: {colour} is neither red nor amber"
                    );
                    abnormal += 1;
                } else {
                    let blue = (190.0..=250.0).contains(&hue) || saturation < 0.04;
                    assert!(blue, "{selector}: {colour} is neither grey nor blue ({hue})");
                }
            }
        }
        assert_eq!(abnormal, 8);
    }
}
