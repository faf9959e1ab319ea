//! Writes an initramfs: a cpio archive in the form `newc` (kernel: Documentation/driver-api/early-userspace/buffer-format).

/// An archive being written.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A folder for all to read.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    /// A file.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, (0, 0), content);
    }

    /// `/dev/console`, which the first program gets as its standard streams.
    pub(super) fn console(&mut self) {
        self.entry("dev/console", 0o020_600, (5, 1), &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let length = content.len() as u32;
        // Inode, mode, user, group, links, time, length, device of the file system, device, length of name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().div_ceil(4) * 4, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"abcde");
        let bytes = archive.finish();
        let head = "07070100000001000081ed0000000000000000000000010000000000000005";
        assert!(bytes.starts_with(head.as_bytes()), "{}", String::from_utf8_lossy(&bytes[..64]));
        assert_eq!(&bytes[110..124], b"init\0\0abcde\0\0\0");
        assert!(bytes.len().is_multiple_of(4));
    }
}
