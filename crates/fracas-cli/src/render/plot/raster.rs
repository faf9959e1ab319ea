//! A drawing as PNG, two pixels for each of its own. It knows rectangles, slanted edges and one small font, and no more.
//!
//! The picture is a palette of the few paints, in stored blocks: no compressor is needed for some hundred kilobytes that a
//! mail or a chat compresses anyway. Formats: PNG (RFC 2083), zlib (RFC 1950), DEFLATE (RFC 1951).

use font8x8::UnicodeFonts as _;

use super::{Drawing, Paint, Shape};

/// Pixels of the picture for one of the drawing.
const SCALE: f64 = 2.0;
/// Side of a letter, pixels of the picture.
const LETTER: i64 = 16;
/// The paints, by their index in the palette.
const PAINTS: [Paint; 8] =
    [Paint::Paper, Paint::Ink, Paint::Faint, Paint::Band, Paint::Later, Paint::Met, Paint::Missed, Paint::Open];
/// A side never has more pixels, however many services there are.
const LONGEST: f64 = 20_000.0;
/// Most bytes of a stored block.
const BLOCK: usize = 65_535;

/// The whole picture.
pub(in crate::render) fn png(drawing: &Drawing) -> Vec<u8> {
    let side = |length: f64| (length * SCALE).clamp(1.0, LONGEST) as usize;
    let mut canvas = Canvas::new(side(drawing.width), side(drawing.height));
    for shape in &drawing.shapes {
        canvas.draw(shape);
    }
    canvas.encode()
}

struct Canvas {
    width: usize,
    height: usize,
    /// Indices of paints, row by row.
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![0; width * height] }
    }

    fn dot(&mut self, x: i64, y: i64, paint: Paint) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = index(paint);
        }
    }

    fn fill(&mut self, from: (i64, i64), to: (i64, i64), paint: Paint) {
        let (right, bottom) = (to.0.min(self.width as i64), to.1.min(self.height as i64));
        for y in from.1.max(0)..bottom {
            for x in from.0.max(0)..right {
                self.dot(x, y, paint);
            }
        }
    }

    fn draw(&mut self, shape: &Shape) {
        let at = |length: f64| (length * SCALE).round() as i64;
        match shape {
            Shape::Box { x, y, width, height, paint, .. } => {
                self.fill((at(*x), at(*y)), (at(x + width), at(y + height)), *paint);
            }
            Shape::Line { from, to, paint, dashed } => {
                let (from, to) = ((at(from.0), at(from.1)), (at(to.0), at(to.1)));
                for x in from.0..=to.0 {
                    for y in from.1..=to.1 {
                        if !dashed || ((x - from.0) + (y - from.1)) % 16 < 8 {
                            self.dot(x, y, *paint);
                        }
                    }
                }
            }
            Shape::Beyond { x, y, size, paint } => {
                for row in 0..at(*size) {
                    let (middle, y) = (at(*x), at(*y) + row);
                    self.fill((middle - row, y), (middle + row + 1, y + 1), *paint);
                }
            }
            Shape::Cross { x, y, size, paint } => {
                let (middle, half) = ((at(*x), at(*y)), at(*size) / 2);
                for step in -half..=half {
                    self.fill((middle.0 + step, middle.1 + step), (middle.0 + step + 2, middle.1 + step + 1), *paint);
                    self.fill((middle.0 + step, middle.1 - step), (middle.0 + step + 2, middle.1 - step + 1), *paint);
                }
            }
            Shape::Text { x, y, text, paint, to_the_left } => {
                let wide = text.chars().count() as i64 * LETTER;
                let left = if *to_the_left { at(*x) - wide } else { at(*x) };
                for (letter, place) in text.chars().zip(0_i64..) {
                    self.letter(letter, (left + place * LETTER, at(*y) - LETTER), *paint);
                }
            }
        }
    }

    /// A letter of the font; a box for what it lacks.
    fn letter(&mut self, letter: char, place: (i64, i64), paint: Paint) {
        let missing = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0];
        let rows = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter)).unwrap_or(missing);
        let dot = LETTER / 8;
        for (row, y) in rows.iter().zip(0_i64..) {
            for x in (0..8_i64).filter(|x| row >> x & 1 == 1) {
                let corner = (place.0 + x * dot, place.1 + y * dot);
                self.fill(corner, (corner.0 + dot, corner.1 + dot), paint);
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut head = Vec::new();
        head.extend((self.width as u32).to_be_bytes());
        head.extend((self.height as u32).to_be_bytes());
        // Four bits for a pixel, by palette; no other choice there is.
        head.extend([4, 3, 0, 0, 0]);
        chunk(&mut out, *b"IHDR", &head);
        chunk(&mut out, *b"PLTE", &PAINTS.map(Paint::rgb).concat());
        let mut rows = Vec::with_capacity((self.width / 2 + 2) * self.height);
        for row in self.pixels.chunks(self.width) {
            // No filter.
            rows.push(0);
            rows.extend(row.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)));
        }
        chunk(&mut out, *b"IDAT", &stored(&rows));
        chunk(&mut out, *b"IEND", &[]);
        out
    }
}

fn index(paint: Paint) -> u8 {
    PAINTS.iter().position(|known| *known == paint).unwrap_or(0) as u8
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    let begin = out.len();
    out.extend(kind);
    out.extend(bytes);
    let sum = crc32(&out[begin..]);
    out.extend(sum.to_be_bytes());
}

/// A zlib stream of stored blocks.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = bytes.chunks(BLOCK).count();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(number + 1 == blocks));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(bytes).to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let byte = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 })
    };
    !bytes.iter().fold(u32::MAX, byte)
}

fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_ones() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"IEND"), 0xae42_6082, "every PNG ends with it");
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn shapes_are_where_they_belong_and_cut_at_the_edges() {
        let paint = Paint::Met;
        let shapes = vec![
            Shape::Box { x: -5.0, y: 1.0, width: 7.0, height: 900.0, paint, said: String::new() },
            Shape::Text { x: 6.0, y: 9.0, text: "|\u{fffd}".into(), paint: Paint::Ink, to_the_left: false },
        ];
        let mut canvas = Canvas::new(40, 20);
        for shape in &shapes {
            canvas.draw(shape);
        }
        let at = |x: usize, y: usize| canvas.pixels[y * 40 + x];
        assert_eq!((at(0, 1), at(0, 2), at(3, 19), at(4, 2)), (0, index(paint), index(paint), 0));
        assert!(canvas.pixels.contains(&index(Paint::Ink)));
        let whole = png(&Drawing { width: 20.0, height: 10.0, title: String::new(), shapes });
        assert_eq!(whole[16..24], [0, 0, 0, 40, 0, 0, 0, 20]);
        assert!(whole.ends_with(&[b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]));
    }

    #[test]
    fn large_pictures_are_stored_in_several_blocks() {
        let bytes = vec![7; BLOCK + 1];
        let stream = stored(&bytes);
        assert_eq!(stream.len(), 2 + 5 + BLOCK + 5 + 1 + 4);
        assert_eq!((stream[2], stream[2 + 5 + BLOCK]), (0, 1), "only the last one is marked");
    }
}
