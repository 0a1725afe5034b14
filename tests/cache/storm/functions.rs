//! The annotated functions of the storm.

use cache_runtime::{cache_evict, cache_put, cacheable};

use super::World;
use super::database::{Database, Failed, Place, Row};
use super::whim::Whim;

#[cacheable(key = "row:<row.group>:<row.id>", ignore = [whim], ttl = 60, cache = world.cache)]
pub(super) async fn read(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(key = "row:<row.group>:<row.id>", ignore = [whim], ttl = 60, grace = "10m", cache = world.cache)]
pub(super) async fn read_with_grace(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    ttl = 60,
    grace = "10m",
    refresh = "background",
    cache = world.cache
)]
pub(super) async fn read_behind(world: World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cache_put(key = "row:<row.group>:<row.id>", ttl = 60, cache = world.cache)]
pub(super) async fn put(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    write_one(&world.database, row, whim).await
}

#[cache_evict(key = "row:<row.group>:<row.id>", cache = world.cache)]
pub(super) async fn update(world: &World, row: Place, whim: Whim) -> Result<u64, Failed> {
    write(&world.database, &[row], whim).await
}

#[cache_evict(key = "row:<row.group>:<row.id>", fence, cache = world.cache)]
pub(super) async fn update_behind_a_fence(
    world: &World,
    row: Place,
    whim: Whim,
) -> Result<u64, Failed> {
    write(&world.database, &[row], whim).await
}

#[cache_evict(key = "row:<row.group>:<row.id>", always, cache = world.cache)]
pub(super) async fn update_or_fail(
    world: &World,
    row: Place,
    mut whim: Whim,
) -> Result<u64, Failed> {
    let version = world.database.write(&[row]);
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(version)
}

#[cache_evict(pattern = "row:<group>:*", cache = world.cache)]
pub(super) async fn update_group(world: &World, group: usize, whim: Whim) -> Result<u64, Failed> {
    write(&world.database, &Place::of_group(group), whim).await
}

pub(super) async fn load(database: &Database, row: Place, mut whim: Whim) -> Result<Row, Failed> {
    whim.dawdle().await;
    let found = database.read(row);
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(found)
}

async fn write_one(database: &Database, row: Place, mut whim: Whim) -> Result<Row, Failed> {
    whim.dawdle().await;
    database.write(&[row]);
    let written = database.read(row);
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(written)
}

/// Fails only before it writes: after an `Err` nothing is evicted.
async fn write(database: &Database, rows: &[Place], mut whim: Whim) -> Result<u64, Failed> {
    whim.dawdle().await;
    whim.may_fail()?;
    let version = database.write(rows);
    whim.dawdle().await;
    Ok(version)
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    tag = "group:<row.group>",
    ttl = 60,
    cache = world.cache
)]
pub(super) async fn read_tagged(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    tag = ["group:<row.group>", "name:<return.key>"],
    ttl = 60,
    grace = "10m",
    cache = world.cache
)]
pub(super) async fn read_named(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    tag = "group:<row.group>",
    ttl = 60,
    grace = "10m",
    refresh = "background",
    cache = world.cache
)]
pub(super) async fn read_tagged_behind(
    world: World,
    row: Place,
    whim: Whim,
) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    ttl = 60,
    local = "5m",
    cache = world.cache
)]
pub(super) async fn read_local(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    ttl = 60,
    grace = "10m",
    refresh = "background",
    local = "5m",
    cache = world.cache
)]
pub(super) async fn read_local_behind(world: World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    tag = "group:<row.group>",
    ttl = 60,
    local = "5m",
    cache = world.cache
)]
pub(super) async fn read_local_tagged(
    world: &World,
    row: Place,
    whim: Whim,
) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    tag = "group:<row.group>",
    ttl = 60,
    grace = "10m",
    refresh = "background",
    local = "5m",
    cache = world.cache
)]
pub(super) async fn read_local_tagged_behind(
    world: World,
    row: Place,
    whim: Whim,
) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cache_put(
    key = "row:<row.group>:<row.id>",
    tag = ["group:<row.group>", "name:<return.key>"],
    ttl = 60,
    cache = world.cache
)]
pub(super) async fn put_tagged(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    write_one(&world.database, row, whim).await
}

#[cache_evict(tag = "group:<group>", cache = world.cache)]
pub(super) async fn update_tag(world: &World, group: usize, whim: Whim) -> Result<u64, Failed> {
    write(&world.database, &Place::of_group(group), whim).await
}

#[cache_evict(tag = "group:<group>", fence, cache = world.cache)]
pub(super) async fn update_tag_behind_a_fence(
    world: &World,
    group: usize,
    whim: Whim,
) -> Result<u64, Failed> {
    write(&world.database, &Place::of_group(group), whim).await
}

#[cache_evict(tag = "group:<group>", always, cache = world.cache)]
pub(super) async fn update_tag_or_fail(
    world: &World,
    group: usize,
    mut whim: Whim,
) -> Result<u64, Failed> {
    let version = world.database.write(&Place::of_group(group));
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(version)
}

/// Fails only before it writes, like [`write`].
#[cache_evict(tag = "name:<return.key>", cache = world.cache)]
pub(super) async fn update_named(world: &World, row: Place, mut whim: Whim) -> Result<Row, Failed> {
    whim.dawdle().await;
    whim.may_fail()?;
    world.database.write(&[row]);
    Ok(world.database.read(row))
}
