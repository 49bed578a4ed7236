-- Species are told by rules in a file, and one word stands for nodes that no rule matches. The
-- history keeps the word that was written before.

DO $$
BEGIN
    IF EXISTS (SELECT FROM public.nodes WHERE species = 'other') THEN
        INSERT INTO public.history_notes (text) VALUES ('The species "other" is called "unknown" from here on.');
    END IF;
END $$;
UPDATE public.nodes SET species = 'unknown' WHERE species = 'other';
UPDATE bitdash_internal.watched_nodes SET species = 'unknown' WHERE species = 'other';

COMMENT ON COLUMN public.nodes.species IS 'The lineage of the software, by the rules of species.toml. TRB: The Real Bitcoin and its descendants. Core: Bitcoin Core, and builds of it that keep its user agent. Knots: Bitcoin Knots, with or without BIP 110. BCH: Bitcoin Cash: BCHN, ABC and others with its mark. BSV: Bitcoin SV. XT: Bitcoin XT. Classic: Bitcoin Classic. Unlimited: Bitcoin Unlimited, on either chain. SegWit2x: btc1, the client of SegWit2x. btcd: btcd, in Go. bcoin: bcoin, in JavaScript. Gocoin: Gocoin, in Go. libbitcoin: libbitcoin, in C++. utreexo: nodes on a utreexo accumulator: utreexod, Floresta. light: wallets and other light clients. indexer: servers for wallets and block explorers. crawler: crawlers, seeders and monitors, bitdash included. other_coin: nodes of another chain with Bitcoin''s magic. disguised: claims that contradict each other: it is not what it says. unknown: no rule matches what it says.';
COMMENT ON COLUMN public.nodes.release IS
    'Species and major version, such as Core 28 or Core 0.21. Null where the species is not one product.';
