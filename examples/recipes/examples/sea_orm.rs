//! Caches the models of SeaORM: `cargo run -p recipes --example sea_orm`.
//!
//! A model that derives serde's `Serialize` and `Deserialize` can be cached as it is.

use cache_runtime::{Cache, Config, cache_evict, cacheable};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, Database, DatabaseConnection, DbErr, EntityTrait, Schema,
};

mod event {
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "events")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub title: String,
        pub organizer: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

struct Events {
    db: DatabaseConnection,
}

impl Events {
    #[cacheable(key = "event:<id>", ttl = "30m")]
    async fn find(&self, id: i64) -> Result<Option<event::Model>, DbErr> {
        println!("query for event {id}");
        event::Entity::find_by_id(id).one(&self.db).await
    }

    #[cacheable(
        key = "events:of:<organizer>",
        ttl = "5m",
        tag = "organizer:<organizer>"
    )]
    async fn organized_by(&self, organizer: i64) -> Result<Vec<event::Model>, DbErr> {
        println!("query for the events of {organizer}");
        let events = event::Entity::find_by_organizer(organizer);
        events.all(&self.db).await
    }

    // The organizer is known only from what the body returns.
    #[cache_evict(key = "event:<id>", tag = "organizer:<return.organizer>")]
    async fn rename(&self, id: i64, title: &str) -> Result<event::Model, DbErr> {
        let change = event::ActiveModel {
            id: Set(id),
            title: Set(title.to_owned()),
            ..Default::default()
        };
        change.update(&self.db).await
    }
}

impl event::Entity {
    fn find_by_organizer(organizer: i64) -> sea_orm::Select<Self> {
        use sea_orm::{ColumnTrait, QueryFilter, QueryOrder};
        let found = Self::find().filter(event::Column::Organizer.eq(organizer));
        found.order_by_asc(event::Column::Id)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    let db = Database::connect("sqlite::memory:").await?;
    let table = Schema::new(db.get_database_backend()).create_table_from_entity(event::Entity);
    db.execute(db.get_database_backend().build(&table)).await?;
    let first = event::ActiveModel {
        title: Set("A quartet".to_owned()),
        organizer: Set(7),
        ..Default::default()
    };
    let id = first.insert(&db).await?.id;

    let events = Events { db };
    println!("{:?}", events.find(id).await?);
    println!("{:?}", events.find(id).await?);
    println!("{} of organizer 7", events.organized_by(7).await?.len());
    events.rename(id, "A quintet").await?;
    println!("{:?}", events.find(id).await?);
    println!("{:?}", events.organized_by(7).await?);

    cache.shutdown().await;
    Ok(())
}
