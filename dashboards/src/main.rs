//! Writes the dashboards as JSON into the folder that is its one argument: `make dashboards`.

use std::io::{Error, ErrorKind};
use std::path::PathBuf;

fn main() -> Result<(), Error> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(Error::new(ErrorKind::InvalidInput, "say which folder the dashboards are written to"));
    };
    for dashboard in tunegate_dashboards::all() {
        std::fs::write(folder.join(dashboard.file_name()), dashboard.json())?;
    }
    Ok(())
}
