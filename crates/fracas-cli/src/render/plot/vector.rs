//! A drawing as SVG that stands alone: its own colours, no script, no request, no font but the reader's.

use std::fmt::Write as _;

use super::{Drawing, Paint, Shape};
use crate::render::page::escape;

/// The whole picture.
pub(in crate::render) fn svg(drawing: &Drawing) -> String {
    let Drawing { width, height, title, shapes } = drawing;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" style=\"max-width:100%;height:auto\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n",
        escape(title),
        colour(Paint::Paper)
    );
    for shape in shapes {
        draw(shape, &mut out);
    }
    out + "</svg>\n"
}

fn draw(shape: &Shape, out: &mut String) {
    let _ = match shape {
        Shape::Box { x, y, width, height, paint, said } => writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{}\">\
             <title>{}</title></rect>",
            colour(*paint),
            escape(said)
        ),
        Shape::Line { from, to, paint, dashed } => writeln!(
            out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{}\"{}/>",
            from.0,
            from.1,
            to.0,
            to.1,
            colour(*paint),
            if *dashed { " stroke-dasharray=\"4 4\"" } else { "" }
        ),
        Shape::Beyond { x, y, size, paint } => writeln!(
            out,
            "<path d=\"M{:.1} {:.1} L{x:.1} {y:.1} L{:.1} {:.1} Z\" fill=\"{}\"/>",
            x - size,
            y + size,
            x + size,
            y + size,
            colour(*paint)
        ),
        Shape::Cross { x, y, size, paint } => {
            let half = size / 2.0;
            let (left, right, top, bottom) = (x - half, x + half, y - half, y + half);
            writeln!(
                out,
                "<path d=\"M{left:.1} {top:.1} L{right:.1} {bottom:.1} M{left:.1} {bottom:.1} L{right:.1} {top:.1}\" \
                 stroke=\"{}\" fill=\"none\"/>",
                colour(*paint)
            )
        }
        Shape::Text { x, y, text, paint, to_the_left } => writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\"{}>{}</text>",
            colour(*paint),
            if *to_the_left { " text-anchor=\"end\"" } else { "" },
            escape(text)
        ),
    };
}

fn colour(paint: Paint) -> String {
    let [red, green, blue] = paint.rgb();
    format!("#{red:02x}{green:02x}{blue:02x}")
}
