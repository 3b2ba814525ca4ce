use rummelplatz::ring;

#[ring]
fn server() {}

fn main() {
    server();
}
