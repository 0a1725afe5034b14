use cache_runtime::KeyPart;

#[derive(KeyPart)]
#[key_part(hashed)]
struct Filter {
    city: String,
    free: bool,
}

fn main() {}
