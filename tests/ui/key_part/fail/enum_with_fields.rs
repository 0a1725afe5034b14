use cache_runtime::KeyPart;

#[derive(KeyPart)]
enum Kind {
    All,
    Of(u8),
}

fn main() {}
