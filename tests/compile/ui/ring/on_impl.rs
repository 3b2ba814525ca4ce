use rummelplatz::ring;

struct Server;

#[ring]
impl Server {
    fn new() -> Self {
        Server
    }
}

fn main() {
    Server::new();
}
