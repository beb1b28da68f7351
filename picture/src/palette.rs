//! The style sheet: one colour for each kind of zone, light and dark by the reader's own preference.
//!
//! Colours are never the only sign: kinds are written in the rooms, states have words or dashes.

use std::fmt::Write as _;

/// Class, light ink, light ground, dark ink, dark ground.
const KINDS: [(&str, &str, &str, &str, &str); 9] = [
    ("k-external", "#667085", "#f0f2f5", "#98a2b3", "#1c222b"),
    ("k-enterprise", "#2563ae", "#e9f1fb", "#7db4f0", "#16253a"),
    ("k-dmz", "#6d4bb3", "#f1ecfa", "#b79df0", "#241c3a"),
    ("k-remote", "#a53d86", "#faecf5", "#e592cb", "#351a2d"),
    ("k-operations", "#0f7f7a", "#e4f4f2", "#5fcfc6", "#12302f"),
    ("k-wireless", "#1f7fa8", "#e6f4fa", "#74c7ea", "#132d3a"),
    ("k-transient", "#80652f", "#f6f1e4", "#d3b878", "#2e2717"),
    ("k-control", "#a85f06", "#fdf2e0", "#f0b35c", "#35270f"),
    ("k-safety", "#bb3a2e", "#fdecea", "#f58d80", "#3a1a17"),
];

/// The whole style sheet.
pub(super) fn style() -> String {
    let mut css = String::from(
        "text{font-family:\"Helvetica Neue\",Helvetica,Arial,\"Liberation Sans\",\"DejaVu Sans\",sans-serif}\n\
         .b{font-weight:700}\n\
         .m{font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans Mono\",monospace}\n\
         .glyph,.mark,.gate,.badge-line{fill:none;stroke-width:1.4;stroke-linecap:round;stroke-linejoin:round}\n\
         .mark{stroke-width:1.7}\n\
         .frame{stroke-width:1.6}\n\
         .observe .frame{stroke-dasharray:7 5}\n\
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
             .{class} .head{{fill:{ink}}}.{class} .wire,.{class} .card-frame,.{class} .critical{{stroke:{ink}}}\
             .{class} .must{{stroke:{ink}}}"
        );
    }
}
