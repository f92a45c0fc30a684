//! Classes: what pairs leave to be checked besides protocol and ports, one bit each.

use super::axis;
use crate::abi::{AXIS_COUNT, AXIS_DST, Shape};
use crate::image::ImageWriter;
use crate::policy::{Match, PolicyError};

/// Writes a table and rows of one word for every axis that some class is about.
pub(super) fn write(
    classes: &[Match],
    shape: &mut Shape,
    image: &mut ImageWriter,
) -> Result<(), PolicyError> {
    let classes: Vec<&Match> = classes.iter().collect();
    shape.class_axes = axis::axes_in_use(classes.iter().copied());
    for number in AXIS_DST + 1..AXIS_COUNT {
        if shape.class_axes & 1 << number != 0 {
            shape.class_table[number] = axis::build_words(number, &classes, image)?;
        }
    }
    Ok(())
}
